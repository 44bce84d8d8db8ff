"""From the candidates of a turn to preference pairs, with every pair that was not made counted under a reason."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations
from math import inf
from operator import attrgetter, itemgetter
from typing import NamedTuple

from nat_dpo_pipeline.core.candidates import Candidate, Turn

_score = attrgetter("score")
_margin_of = itemgetter(0)
_Proposal = tuple[float, Candidate, Candidate]


class SkipReason(StrEnum):
    """Why two candidates of one turn are not a pair."""

    TIE = "tie"
    IDENTICAL_TEXT = "identical_text"
    BELOW_MIN_SCORE_DIFF = "below_min_score_diff"
    SCORE_DIFF_NOT_FINITE = "score_diff_not_finite"
    NOT_BEST_VS_WORST = "not_best_vs_worst"
    OVER_MAX_PAIRS_PER_TURN = "over_max_pairs_per_turn"


@dataclass(frozen=True, slots=True)
class PairingRules:
    """Which pairs are made of a turn. Raises ValueError on a bound that no pair could meet."""

    exhaustive_pairs: bool = True
    min_score_diff: float = 0.0
    max_pairs_per_turn: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_score_diff < inf:
            raise ValueError(f"min_score_diff must be finite and not negative, got {self.min_score_diff!r}")
        if self.max_pairs_per_turn is not None and self.max_pairs_per_turn < 1:
            raise ValueError(f"max_pairs_per_turn must be at least 1, got {self.max_pairs_per_turn!r}")


class PreferencePair(NamedTuple):
    """Two candidates of one turn; `chosen` scored strictly higher. A tuple, as a turn of n makes up to n²/2 of them."""

    chosen: Candidate
    rejected: Candidate
    num_candidates: int

    @property
    def margin(self) -> float:
        return self.chosen.score - self.rejected.score


@dataclass(frozen=True, slots=True)
class PairingResult:
    """Pairs in the order of their turns, largest margin first within a turn.

    `len(pairs) + skipped.total()` is the number of pairs of candidates that share a turn.
    """

    pairs: list[PreferencePair] = field(default_factory=list)
    skipped: Counter[SkipReason] = field(default_factory=Counter)


def possible_pairs(turn: Turn) -> int:
    """How many unordered pairs the candidates of a turn form."""
    return len(turn.candidates) * (len(turn.candidates) - 1) // 2


def make_pairs(turns: Iterable[Turn], rules: PairingRules) -> PairingResult:
    """Pair the candidates of each turn; equal scores and texts that differ in outer white space only never pair."""
    result = PairingResult()
    for turn in turns:
        result.pairs.extend(pair_turn(turn, rules, result.skipped))
    return result


def pair_turn(turn: Turn, rules: PairingRules, skipped: Counter[SkipReason]) -> list[PreferencePair]:
    """The pairs of one turn, largest margin first; what is left out is counted in `skipped`."""
    size = len(turn.candidates)
    kept = _within_limit(_acceptable(turn, rules, skipped), rules, skipped)
    return [PreferencePair(chosen, rejected, size) for _, chosen, rejected in kept]


def _acceptable(turn: Turn, rules: PairingRules, skipped: Counter[SkipReason]) -> list[_Proposal]:
    has_twins = len({candidate.response.strip() for candidate in turn.candidates}) < len(turn.candidates)
    lowest = rules.min_score_diff
    accepted: list[_Proposal] = []
    for chosen, rejected in _proposed(turn, rules, skipped):
        margin = chosen.score - rejected.score
        if lowest <= margin < inf and margin > 0.0 and not (has_twins and _same_text(chosen, rejected)):
            accepted.append((margin, chosen, rejected))
        else:
            skipped[_reason(margin, chosen, rejected)] += 1
    return accepted


def _proposed(
    turn: Turn, rules: PairingRules, skipped: Counter[SkipReason]
) -> Iterator[tuple[Candidate, Candidate]] | Sequence[tuple[Candidate, Candidate]]:
    # A stable sort: among equal scores the first to arrive is the best, the last to arrive the worst.
    ranked = sorted(turn.candidates, key=_score, reverse=True)
    if rules.exhaustive_pairs:
        return combinations(ranked, 2)
    if len(ranked) < 2:
        return ()
    skipped[SkipReason.NOT_BEST_VS_WORST] += possible_pairs(turn) - 1
    return ((ranked[0], ranked[-1]),)


def _same_text(chosen: Candidate, rejected: Candidate) -> bool:
    return chosen.response.strip() == rejected.response.strip()


def _reason(margin: float, chosen: Candidate, rejected: Candidate) -> SkipReason:
    if _same_text(chosen, rejected):
        return SkipReason.IDENTICAL_TEXT
    if margin == 0.0:
        return SkipReason.TIE
    return SkipReason.SCORE_DIFF_NOT_FINITE if margin == inf else SkipReason.BELOW_MIN_SCORE_DIFF


def _within_limit(proposals: list[_Proposal], rules: PairingRules, skipped: Counter[SkipReason]) -> list[_Proposal]:
    proposals.sort(key=_margin_of, reverse=True)
    limit = rules.max_pairs_per_turn
    if limit is None or len(proposals) <= limit:
        return proposals
    skipped[SkipReason.OVER_MAX_PAIRS_PER_TURN] += len(proposals) - limit
    return proposals[:limit]
