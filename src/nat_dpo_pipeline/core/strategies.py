"""Which candidates of a turn meet: each strategy proposes pairs, the better one first."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from itertools import combinations, pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from nat_dpo_pipeline.core.ties import is_higher

if TYPE_CHECKING:
    from nat_dpo_pipeline.core.candidates import Candidate


class Strategy(StrEnum):
    """How the two candidates of a pair are found."""

    EXHAUSTIVE = "exhaustive"
    BEST_VS_WORST = "best_vs_worst"
    BEST_VS_SECOND = "best_vs_second"
    BEST_VS_RANDOM = "best_vs_random"
    ADJACENT = "adjacent"
    MEAN_MINUS_2_SIGMA = "mean_minus_2_sigma"


class CutAt(StrEnum):
    """Where rollouts of one task become turns: where their replies differ first, or everywhere; first or last reply."""

    DIVERGENCE = "divergence"
    EVERY = "every"
    FIRST = "first"
    LAST = "last"


class Thoughts(StrEnum):
    """Thoughts in front of replies: written on both sides of a pair where both have them, or on neither."""

    KEEP = "keep"
    DROP = "drop"


class Ranked(NamedTuple):
    """A candidate and the value that it is ranked by: its score, less what its length costs."""

    value: float
    candidate: "Candidate"


Proposal = tuple[Ranked, Ranked]

_value = itemgetter(0)


def rank(candidates: "Iterable[Candidate]", length_penalty: float = 0.0) -> list[Ranked]:
    """The candidates by score - `length_penalty` for every 1,000 characters, highest first; equal ones as they came."""
    valued = [Ranked(one.score - length_penalty * len(one.response) / 1000, one) for one in candidates]
    return sorted(valued, key=_value, reverse=True)


def propose(strategy: Strategy, ranked: Sequence[Ranked], seed: int = 0) -> Sequence[Proposal]:
    """The pairs that the strategy makes of the ranked candidates of one turn. Those of equal value are ties."""
    if len(ranked) < 2:
        return ()
    return best_vs_random(ranked, seed) if strategy is Strategy.BEST_VS_RANDOM else _PROPOSE[strategy](ranked)


def exhaustive(ranked: Sequence[Ranked]) -> Sequence[Proposal]:
    """Every two candidates."""
    return list(combinations(ranked, 2))


def best_vs_worst(ranked: Sequence[Ranked]) -> Sequence[Proposal]:
    """Of equals the first to arrive is the best, the last the worst."""
    return ((ranked[0], ranked[-1]),)


def best_vs_second(ranked: Sequence[Ranked]) -> Sequence[Proposal]:
    """The best, and the best of those with a lower value."""
    return ((ranked[0], _lower(ranked)[0]),)


def best_vs_random(ranked: Sequence[Ranked], seed: int) -> Sequence[Proposal]:
    """The best, and one drawn of those with a lower value: by a hash, so that no other turn has a say in it."""
    best, lower = ranked[0], _lower(ranked)
    key = repr((seed, best.candidate.example_id, best.candidate.turn_id))
    drawn = int.from_bytes(sha256(key.encode(errors="surrogatepass")).digest())
    return ((best, lower[drawn % len(lower)]),)


def adjacent(ranked: Sequence[Ranked]) -> Sequence[Proposal]:
    """Each candidate, and the next one in the ranking."""
    return list(pairwise(ranked))


def mean_minus_2_sigma(ranked: Sequence[Ranked]) -> Sequence[Proposal]:
    """The best, and of those with a lower value the nearest to the mean - 2 population standard deviations.

    From arXiv 2502.16825. Of equally near ones it is the lowest. No value of five is further than 2 standard deviations
    from their mean (Samuelson's inequality): up to there it is the worst.
    """
    from statistics import mean, pstdev  # every `nat` command would pay for it, as configurations name the strategies

    values = [one.value for one in ranked]
    target = mean(values) - 2 * pstdev(values)
    return ((ranked[0], min(reversed(_lower(ranked)), key=lambda one: abs(one.value - target))),)


def _lower(ranked: Sequence[Ranked]) -> Sequence[Ranked]:
    """Return the candidates below the best, or all others where none is, which makes the pair a tie."""
    best = ranked[0].value
    return [one for one in ranked[1:] if is_higher(best, one.value)] or ranked[1:]


_PROPOSE: Mapping[Strategy, Callable[[Sequence[Ranked]], Sequence[Proposal]]] = MappingProxyType(
    {
        Strategy.EXHAUSTIVE: exhaustive,
        Strategy.BEST_VS_WORST: best_vs_worst,
        Strategy.BEST_VS_SECOND: best_vs_second,
        Strategy.ADJACENT: adjacent,
        Strategy.MEAN_MINUS_2_SIGMA: mean_minus_2_sigma,
    }
)
