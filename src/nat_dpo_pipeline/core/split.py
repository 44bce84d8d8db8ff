"""Deduplication, sampling and the split by prompt, each the same for the same seed."""

import hashlib
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def deduplicate(items: Iterable[T], key: Callable[[T], Hashable]) -> list[T]:
    """The first item of each key, in order."""
    first: dict[Hashable, T] = {}
    for item in items:
        first.setdefault(key(item), item)
    return list(first.values())


def sample(items: Sequence[T], count: int, seed: int) -> list[T]:
    """`count` items drawn without replacement (all of them when there are fewer), in their original order."""
    if len(items) <= count:
        return list(items)
    drawn = random.Random(seed).sample(range(len(items)), count)  # noqa: S311 - not for cryptography
    return [items[index] for index in sorted(drawn)]


def validation_prompts(prompts: Iterable[str], fraction: float, seed: int) -> frozenset[str]:
    """Which of the distinct prompts go to validation: `fraction` of them, rounded.

    With two prompts or more and a fraction above 0 there is at least one on each side. A prompt's rank depends on the
    seed and its own text only, not on the order of the prompts.
    """
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"the validation fraction must be at least 0 and below 1, got {fraction!r}")
    distinct = sorted(set(prompts), key=lambda prompt: _rank(prompt, seed))
    if fraction == 0.0 or len(distinct) < 2:
        return frozenset()
    count = min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)
    return frozenset(distinct[:count])


def stratified_validation_prompts(prompts: Iterable[tuple[str, str]], fraction: float, seed: int) -> frozenset[str]:
    """As many prompts as `validation_prompts` holds out, from each stratum as near to its share as whole prompts allow.

    `prompts` are prompts with their strata; one that is in several counts for the first. What remains of the shares
    goes to the largest remainders, equal ones by a hash of seed and stratum.
    """
    stratum_of: dict[str, str] = {}
    for prompt, stratum in prompts:
        stratum_of.setdefault(prompt, stratum)
    total = len(validation_prompts(stratum_of, fraction, seed))
    members: dict[str, list[str]] = {}
    for prompt, stratum in stratum_of.items():
        members.setdefault(stratum, []).append(prompt)
    share = total / len(stratum_of) if stratum_of else 0.0
    seats = {stratum: int(share * len(inside)) for stratum, inside in members.items()}
    by_remainder = sorted(members, key=lambda one: (seats[one] - share * len(members[one]), _rank(one, seed)))
    for stratum in by_remainder[: total - sum(seats.values())]:
        seats[stratum] += 1
    return frozenset(
        prompt
        for stratum, inside in members.items()
        for prompt in sorted(inside, key=lambda prompt: _rank(prompt, seed))[: seats[stratum]]
    )


def is_held_out(prompt_key: str, fraction: float, seed: int) -> bool:
    """Whether a prompt goes to validation, told by itself: its side is the same in every run with the same seed.

    About `fraction` of the prompts do. Where all prompts are known, `validation_prompts` holds out exactly so many.
    """
    return int.from_bytes(_rank(prompt_key, seed)[:8], "big") / 2**64 < fraction


def _rank(prompt: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{prompt}".encode(errors="surrogatepass")).digest()
