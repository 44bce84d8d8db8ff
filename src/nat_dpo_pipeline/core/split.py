"""Deduplication, sampling and the split by prompt, each the same for the same seed."""

import hashlib
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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
    return stratified_validation_prompts(((prompt, "") for prompt in prompts), fraction, seed)


def stratified_validation_prompts(prompts: Iterable[tuple[str, str]], fraction: float, seed: int) -> frozenset[str]:
    """As many prompts as `validation_prompts` holds out, from each stratum as near to its share as whole prompts allow.

    `prompts` are prompts with their strata; one that is in several counts for the first. What remains of the shares
    goes to the largest remainders, equal ones by a hash of seed and stratum.
    """
    strata: dict[int, int] = {}
    by_rank: dict[int, str] = {}
    for prompt, stratum in prompts:
        by_rank.setdefault(rank(prompt, seed), prompt)
        strata.setdefault(rank(prompt, seed), rank(stratum, seed))
    return frozenset(by_rank[one] for one in ranks_held_out(strata, fraction))


def ranks_held_out(strata: Mapping[int, int], fraction: float) -> frozenset[int]:
    """The ranks of the prompts that go to validation, of the ranks of all prompts with those of their strata."""
    if not 0.0 <= fraction < 1.0:
        raise ValueError(f"the validation fraction must be at least 0 and below 1, got {fraction!r}")
    if fraction == 0.0 or len(strata) < 2:
        return frozenset()
    total = min(max(round(fraction * len(strata)), 1), len(strata) - 1)
    members: dict[int, list[int]] = {}
    for prompt, stratum in strata.items():
        members.setdefault(stratum, []).append(prompt)
    share = total / len(strata)
    seats = {stratum: int(share * len(inside)) for stratum, inside in members.items()}
    by_remainder = sorted(members, key=lambda one: (seats[one] - share * len(members[one]), one))
    for stratum in by_remainder[: total - sum(seats.values())]:
        seats[stratum] += 1
    return frozenset(one for stratum, inside in members.items() for one in sorted(inside)[: seats[stratum]])


def is_held_out(prompt_key: str, fraction: float, seed: int) -> bool:
    """Whether a prompt goes to validation, told by itself: its side is the same in every run with the same seed.

    About `fraction` of the prompts do. Where all prompts are known, `validation_prompts` holds out exactly so many.
    """
    return rank(prompt_key, seed) / 2**64 < fraction


def rank(text: str, seed: int) -> int:
    """A number of 64 bits that depends on the text and the seed: prompts are held out from the lowest on."""
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{text}".encode(errors="surrogatepass")).digest()[:8], "big")
