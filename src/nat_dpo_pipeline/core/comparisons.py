"""Comparisons of two responses, and what they make of the responses of one prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from types import MappingProxyType

from nat_dpo_pipeline.core.ties import is_higher


class Winner(StrEnum):
    """Which of two responses is better, in the order in which they were shown."""

    FIRST = "A"
    SECOND = "B"
    TIE = "tie"


_TURNED = MappingProxyType({Winner.FIRST: Winner.SECOND, Winner.SECOND: Winner.FIRST, Winner.TIE: Winner.TIE})
_POINTS = MappingProxyType({Winner.FIRST: 1.0, Winner.TIE: 0.5, Winner.SECOND: 0.0})


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge said of two responses.

    `individual` are the scores it gave to each on its own, if it gives any, and `lead` is how far the better one is
    ahead, in the same points.
    """

    winner: Winner
    individual: tuple[float, float] | None = None
    lead: float = 0.0

    def turned(self) -> "Comparison":
        """The same with the second response first."""
        individual = None if self.individual is None else (self.individual[1], self.individual[0])
        return Comparison(_TURNED[self.winner], individual, self.lead)


@dataclass(frozen=True, slots=True)
class Standing:
    """What comparisons make of one response; `individual` is the mean of its own scores, if the judge gives any."""

    value: float
    individual: float | None = None


def standings(count: int, comparisons: Mapping[tuple[int, int], Comparison]) -> list[Standing | None]:
    """How `count` responses stand; `comparisons` are keyed by the positions of the responses in the order shown.

    Only what was compared in both orders counts, since a judge may prefer a place rather than a response: a winner is
    one that both orders name, anything else a tie. A value is the mean of 1 for each response that was beaten, 1/2 for
    each tie and 0 for each loss, so it lies in [0, 1]. None where nothing counts.

    Two responses whose judge scores each on its own have values in its points instead, so that their margin says by how
    much: the means of both orders where these rank the two as the winner does. Otherwise both stand around their common
    mean, a tie at it and a winner `lead` above the loser. So a winner's value is always greater, and a tie's are equal.
    """
    settled = {
        (one, other): _settled(said, comparisons[other, one])
        for (one, other), said in comparisons.items()
        if one < other and (other, one) in comparisons
    }
    return [_standing(_seen_from(index, settled), count) for index in range(count)]


def _settled(forward: Comparison, backward: Comparison) -> Comparison:
    back = backward.turned()
    winner = forward.winner if forward.winner is back.winner else Winner.TIE
    individual = None
    if forward.individual is not None and back.individual is not None:
        first, second = zip(forward.individual, back.individual, strict=True)
        individual = fmean(first), fmean(second)
    return Comparison(winner, individual, fmean([forward.lead, back.lead]))


def _seen_from(index: int, settled: Mapping[tuple[int, int], Comparison]) -> list[Comparison]:
    return [
        comparison if index == one else comparison.turned()
        for (one, other), comparison in settled.items()
        if index in (one, other)
    ]


def _standing(seen: list[Comparison], count: int) -> Standing | None:
    if not seen:
        return None
    own = [comparison.individual[0] for comparison in seen if comparison.individual is not None]
    individual = fmean(own) if own else None
    in_points = _in_points(seen[0]) if count == 2 else None
    share = fmean(_POINTS[comparison.winner] for comparison in seen)
    return Standing(share if in_points is None else in_points, individual)


def _in_points(comparison: Comparison) -> float | None:
    """The first response's value in the points of the judge's own scores."""
    if comparison.individual is None:
        return None
    own, other = comparison.individual
    middle, half_lead = (own + other) / 2, comparison.lead / 2
    if comparison.winner is Winner.TIE:
        return middle
    if comparison.winner is Winner.FIRST:
        return own if is_higher(own, other) else middle + half_lead
    return own if is_higher(other, own) else middle - half_lead
