"""Pairs of many turns at once, by the definitions of `core.pairs`: the same pairs, order and counts as `make_pairs`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import numpy as np

from nat_dpo_pipeline.core.pairs import PASSED_OVER, PairingRules, SkipReason
from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.core.ties import ROUNDING
from nat_dpo_pipeline.pairing.meetings import MEET, Meetings, best_vs_random
from nat_dpo_pipeline.records.columns import Bools, Floats, Ints, Objects, Turns, objects

# Proposals that are looked at together: some ten arrays of this length are alive at a time.
_AT_ONCE = 1 << 19
_REASONS = tuple(SkipReason)
_ACCEPTED = -1


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows of the chosen and the rejected candidates with their turn, in the order of `make_pairs`."""

    chosen: Ints
    rejected: Ints
    margin: Floats
    turn: Ints

    def __len__(self) -> int:
        return len(self.turn)

    def take(self, places: Ints | Bools | slice) -> "Pairs":
        return Pairs(self.chosen[places], self.rejected[places], self.margin[places], self.turn[places])


@dataclass(frozen=True, slots=True)
class _Texts:
    stripped: Objects
    stripped_length: Ints
    length: Ints

    @classmethod
    def of(cls, responses: Objects) -> "_Texts":
        count = len(responses)
        stripped = [text.strip() for text in responses]
        lengths = (np.fromiter(map(len, texts), np.int64, count) for texts in (stripped, responses))
        return cls(objects(stripped, count), *lengths)

    def are_same(self, one: Ints, other: Ints) -> Bools:
        """Whether texts are equal but for outer white space; only those of equal length are compared."""
        same = self.stripped_length[one] == self.stripped_length[other]
        places = np.nonzero(same)
        same[places] = self.stripped[one[places]] == self.stripped[other[places]]
        return np.asarray(same, dtype=bool)


def pair_turns(turns: Turns, rules: PairingRules, skipped: Counter[SkipReason]) -> Pairs:
    """The pairs of all turns; what is left out is counted in `skipped`. All rows must be candidates."""
    texts = _Texts.of(turns.columns.response)
    turn_of_rows = turns.turn_of_rows()
    rows = _usable_rows(turns, turn_of_rows, texts, rules, skipped)
    counts = np.bincount(turn_of_rows[rows], minlength=len(turns))
    starts = np.concatenate(([0], np.cumsum(counts)))[:-1]
    found: list[Pairs] = []
    with np.errstate(over="ignore"):
        for size in np.unique(counts[counts > 1]).tolist():
            for some in _portions(np.flatnonzero(counts == size), size, rules.applied_strategy):
                matrix = rows[starts[some][:, None] + np.arange(size)]
                found.append(_pairs_of_size(turns, some, matrix, texts, rules, skipped))
    return _in_order(found)


def _usable_rows(
    turns: Turns, turn_of_rows: Ints, texts: _Texts, rules: PairingRules, skipped: Counter[SkipReason]
) -> Ints:
    is_filled = texts.stripped_length > 0
    is_usable = is_filled if rules.pair_flawed else is_filled & ~turns.columns.is_flawed
    possible, filled, usable = (
        _possible(np.bincount(turn_of_rows[mask], minlength=len(turns)))
        for mask in (np.ones_like(is_filled), is_filled, is_usable)
    )
    _count(skipped, SkipReason.BLANK, possible - filled)
    _count(skipped, SkipReason.FLAWED, filled - usable)
    return np.flatnonzero(is_usable)


def _possible(sizes: Ints) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _portions(turns: Ints, size: int, strategy: Strategy) -> Iterator[Ints]:
    width = size * (size - 1) // 2 if strategy is Strategy.EXHAUSTIVE else size
    step = max(_AT_ONCE // width, 1)
    for start in range(0, len(turns), step):
        yield turns[start : start + step]


def _pairs_of_size(
    turns: Turns, places: Ints, rows: Ints, texts: _Texts, rules: PairingRules, skipped: Counter[SkipReason]
) -> Pairs:
    """The pairs of turns with equally many usable candidates: `rows` has a row for each of the turns at `places`."""
    score = turns.columns.score
    possible = rows.shape[1] * (rows.shape[1] - 1) // 2
    if rules.min_best_score is not None:
        is_good = score[rows].max(axis=1) >= rules.min_best_score
        _count(skipped, SkipReason.BELOW_MIN_BEST_SCORE, possible * int((~is_good).sum()))
        places, rows = places[is_good], rows[is_good]
    value = score[rows] - rules.length_penalty * texts.length[rows] / 1000
    order = np.argsort(-value, axis=1, kind="stable")
    rows, value = np.take_along_axis(rows, order, axis=1), np.take_along_axis(value, order, axis=1)
    better, worse = _spread(_meetings(turns, rows, value, rules), len(rows))
    _count(skipped, PASSED_OVER.get(rules.applied_strategy), len(rows) * possible - better.size)

    chosen, rejected = np.take_along_axis(rows, better, axis=1), np.take_along_axis(rows, worse, axis=1)
    margin = score[chosen] - score[rejected]
    high, low = np.take_along_axis(value, better, axis=1), np.take_along_axis(value, worse, axis=1)
    is_tie = ~_is_higher(high, high - low)
    reason = _objections(turns, chosen, rejected, margin, is_tie, texts, rules)
    if chosen.shape[1] > 1:
        by_margin = np.argsort(-margin, axis=1, kind="stable")
        chosen, rejected, reason = (np.take_along_axis(one, by_margin, axis=1) for one in (chosen, rejected, reason))
        margin = np.take_along_axis(margin, by_margin, axis=1)
    if rules.max_pairs_per_turn is not None:
        is_kept = reason == _ACCEPTED
        is_over = is_kept & (np.cumsum(is_kept, axis=1) > rules.max_pairs_per_turn)
        reason[is_over] = _REASONS.index(SkipReason.OVER_MAX_PAIRS_PER_TURN)
    is_kept = reason == _ACCEPTED
    for code, count in enumerate(np.bincount(reason[~is_kept], minlength=len(_REASONS)).tolist()):
        _count(skipped, _REASONS[code], count)
    turn = np.broadcast_to(places[:, None], reason.shape)
    return Pairs(chosen[is_kept], rejected[is_kept], margin[is_kept], turn[is_kept])


def _meetings(turns: Turns, rows: Ints, value: Floats, rules: PairingRules) -> Meetings:
    if rules.applied_strategy is Strategy.BEST_VS_RANDOM:
        first = rows[:, 0]
        ids = list(zip(turns.columns.example_id[first], turns.columns.turn_id[first], strict=True))
        return best_vs_random(value, rules.seed, ids)
    return MEET[rules.applied_strategy](value)


def _spread(meetings: Meetings, turns: int) -> Meetings:
    better, worse = meetings
    width = max(better.shape[1], worse.shape[1])
    return np.broadcast_to(better, (turns, width)), np.broadcast_to(worse, (turns, width))


def _objections(
    turns: Turns, chosen: Ints, rejected: Ints, margin: Floats, is_tie: Bools, texts: _Texts, rules: PairingRules
) -> Ints:
    """For each proposal the number of the first reason against it, or _ACCEPTED."""
    reason = np.full(chosen.shape, _ACCEPTED, dtype=np.int64)

    def object_to(why: SkipReason, applies: Bools) -> None:
        reason[(reason == _ACCEPTED) & applies] = _REASONS.index(why)

    object_to(SkipReason.IDENTICAL_TEXT, texts.are_same(chosen, rejected))
    object_to(SkipReason.TIE, is_tie)
    score = turns.columns.score
    object_to(SkipReason.TURNED_BY_LENGTH_PENALTY, _is_higher(score[rejected], -margin))
    object_to(SkipReason.TIE, ~_is_higher(score[chosen], margin))
    object_to(SkipReason.SCORE_DIFF_NOT_FINITE, margin == inf)
    object_to(SkipReason.BELOW_MIN_SCORE_DIFF, margin < rules.min_score_diff)
    proposals = _Proposals(score, texts.length, chosen, rejected, margin)
    one_by_one: list[tuple[SkipReason, Callable[..., bool]]] = []
    for why, fails in rules.checks:
        if why in _BOUNDS:
            name, is_outside = _BOUNDS[why]
            object_to(why, is_outside(proposals, getattr(rules, name)))
        else:
            one_by_one.append((why, fails))
    if one_by_one:
        for place in zip(*np.nonzero(reason == _ACCEPTED), strict=True):
            better, worse = (turns.columns.candidate(one[place]) for one in (chosen, rejected))
            against = next((why for why, fails in one_by_one if fails(better, worse)), None)
            if against is not None:
                reason[place] = _REASONS.index(against)
    return reason


def _is_higher(score: Floats, margin: Floats) -> Bools:
    """Return where scores are above others, by so much, as `core.ties.is_higher` has it."""
    return np.asarray(margin > ROUNDING * np.abs(score), dtype=bool)


class _Proposals(NamedTuple):
    """Two candidates each, by row, and what bounds look at."""

    score: Floats
    length: Ints
    chosen: Ints
    rejected: Ints
    margin: Floats


def _is_over_max_length_ratio(proposals: _Proposals, limit: float) -> Bools:
    lengths = proposals.length[proposals.chosen], proposals.length[proposals.rejected]
    return np.asarray(np.maximum(*lengths) > limit * np.minimum(*lengths), dtype=bool)


#: Where proposals are outside a bound: `core.filters`, as far as it compares numbers, with the rule that it is for.
_BOUNDS: Mapping[SkipReason, tuple[str, Callable[[_Proposals, float], Bools]]] = {
    SkipReason.OVER_MAX_SCORE_DIFF: ("max_score_diff", lambda given, limit: given.margin > limit),
    SkipReason.BELOW_MIN_CHOSEN_SCORE: ("min_chosen_score", lambda given, limit: given.score[given.chosen] < limit),
    SkipReason.BELOW_MIN_REJECTED_SCORE: (
        "min_rejected_score",
        lambda given, limit: given.score[given.rejected] < limit,
    ),
    SkipReason.BELOW_MIN_REJECTED_LENGTH: (
        "min_rejected_length",
        lambda given, limit: given.length[given.rejected] < limit,
    ),
    SkipReason.OVER_MAX_LENGTH_RATIO: ("max_length_ratio", _is_over_max_length_ratio),
}


def _in_order(found: list[Pairs]) -> Pairs:
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return Pairs(none, none, none.astype(np.float64), none)
    if len(found) == 1:
        return found[0]
    parts = zip(*((one.chosen, one.rejected, one.margin, one.turn) for one in found), strict=True)
    pairs = Pairs(*(np.concatenate(part) for part in parts))
    return pairs.take(np.argsort(pairs.turn, kind="stable"))


def _count(skipped: Counter[SkipReason], reason: SkipReason | None, number: int) -> None:
    if reason is not None and number:
        skipped[reason] += number
