import sys
from collections import Counter
from itertools import combinations
from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason, make_pairs, pair_turn, possible_pairs
from nat_dpo_pipeline.testing import make_turn

SCORES = st.sampled_from(
    [0.0, -0.0, 1.0, 1.5, 2.0, 5e-324, -5e-324, sys.float_info.min, sys.float_info.max, -sys.float_info.max]
) | st.floats(allow_nan=False, allow_infinity=False)
RESPONSES = st.sampled_from(["a", " a", "a\n", "\u2003a", "b", "b ", "", " "]) | st.text(max_size=3)
MARGINS = st.sampled_from([0.0, 5e-324, 0.5, 1.0, sys.float_info.max]) | st.floats(0.0, 10.0)
TURNS = st.lists(
    st.lists(st.tuples(SCORES, RESPONSES), max_size=6).map(
        lambda drawn: Turn(
            "example",
            "turn",
            "q",
            [Candidate("example", "turn", i, "q", response, score) for i, (score, response) in enumerate(drawn)],
        )
    ),
    max_size=2,
)
RULES = st.builds(
    PairingRules,
    exhaustive_pairs=st.booleans(),
    min_score_diff=MARGINS,
    max_pairs_per_turn=st.none() | st.integers(1, 12),
)


def _turn(*scored: tuple[float, str]) -> Turn:
    return Turn("e", "t", "q", [Candidate("e", "t", i, "q", text, score) for i, (score, text) in enumerate(scored)])


def _acceptable(one: Candidate, other: Candidate, rules: PairingRules) -> bool:
    margin = abs(one.score - other.score)
    differ = one.response.strip() != other.response.strip()
    filled = bool(one.response.strip() and other.response.strip())
    return filled and differ and isfinite(margin) and margin > 0.0 and margin >= rules.min_score_diff


@given(TURNS, RULES)
def test_the_chosen_response_always_scored_strictly_higher(turns: list[Turn], rules: PairingRules) -> None:
    for pair in make_pairs(turns, rules).pairs:
        assert pair.chosen.score > pair.rejected.score
        assert isfinite(pair.margin)
        assert pair.margin > 0.0


@given(TURNS, RULES)
def test_the_texts_of_a_pair_differ_in_more_than_outer_white_space(turns: list[Turn], rules: PairingRules) -> None:
    for pair in make_pairs(turns, rules).pairs:
        assert pair.chosen.response.strip() != pair.rejected.response.strip()


@given(TURNS, RULES)
def test_every_possible_pair_is_made_or_counted(turns: list[Turn], rules: PairingRules) -> None:
    result = make_pairs(turns, rules)
    assert len(result.pairs) + result.skipped.total() == sum(map(possible_pairs, turns))
    assert all(count > 0 for reason, count in result.skipped.items() if reason is not SkipReason.NOT_BEST_VS_WORST)


@given(TURNS, RULES)
def test_the_same_turns_and_rules_make_the_same_pairs(turns: list[Turn], rules: PairingRules) -> None:
    assert make_pairs(turns, rules) == make_pairs(iter(turns), rules)


@given(TURNS, RULES)
def test_turns_are_paired_apart_in_their_order_and_largest_margin_first(turns: list[Turn], rules: PairingRules) -> None:
    skipped: Counter[SkipReason] = Counter()
    by_turn = [pair_turn(turn, rules, skipped) for turn in turns]
    result = make_pairs(turns, rules)
    assert result.pairs == [pair for pairs in by_turn for pair in pairs]
    assert result.skipped == skipped
    for pairs in by_turn:
        margins = [pair.margin for pair in pairs]
        assert margins == sorted(margins, reverse=True)


@given(TURNS, RULES)
def test_limits_of_number_and_margin_hold_in_every_turn(turns: list[Turn], rules: PairingRules) -> None:
    most = inf if rules.max_pairs_per_turn is None else rules.max_pairs_per_turn
    for turn in turns:
        pairs = pair_turn(turn, rules, Counter())
        assert len(pairs) <= (most if rules.exhaustive_pairs else 1)
        assert all(pair.margin >= rules.min_score_diff for pair in pairs)
        assert all(pair.num_candidates == len(turn.candidates) for pair in pairs)


@given(TURNS, RULES)
def test_exhaustive_pairing_leaves_no_acceptable_pair_out(turns: list[Turn], rules: PairingRules) -> None:
    exhaustive = PairingRules(min_score_diff=rules.min_score_diff, max_pairs_per_turn=rules.max_pairs_per_turn)
    for turn in turns:
        acceptable = sum(_acceptable(one, other, exhaustive) for one, other in combinations(turn.candidates, 2))
        made = len(pair_turn(turn, exhaustive, Counter()))
        assert made == min(acceptable, exhaustive.max_pairs_per_turn or acceptable)


@given(TURNS)
def test_best_vs_worst_pairs_the_highest_score_with_the_lowest(turns: list[Turn]) -> None:
    for turn in turns:
        for pair in pair_turn(turn, PairingRules(exhaustive_pairs=False), Counter()):
            scores = [candidate.score for candidate in turn.candidates if candidate.response.strip()]
            assert (pair.chosen.score, pair.rejected.score) == (max(scores), min(scores))


def test_three_scores_make_three_pairs() -> None:
    result = make_pairs([make_turn([2.0, 3.0, 1.0])], PairingRules())
    assert [(pair.chosen.candidate_index, pair.rejected.candidate_index) for pair in result.pairs] == [
        (1, 2),
        (1, 0),
        (0, 2),
    ]
    assert not result.skipped


def test_best_vs_worst_counts_the_pairs_it_does_not_consider() -> None:
    result = make_pairs([make_turn([2.0, 3.0, 1.0])], PairingRules(exhaustive_pairs=False))
    assert [(pair.chosen.score, pair.rejected.score) for pair in result.pairs] == [(3.0, 1.0)]
    assert result.skipped == {SkipReason.NOT_BEST_VS_WORST: 2}


def test_best_vs_worst_takes_the_first_of_the_best_and_the_last_of_the_worst() -> None:
    (pair,) = make_pairs([make_turn([1.0, 2.0, 2.0, 1.0])], PairingRules(exhaustive_pairs=False)).pairs
    assert (pair.chosen.candidate_index, pair.rejected.candidate_index) == (1, 3)


@pytest.mark.parametrize("exhaustive", [True, False])
@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (_turn((1.0, "a"), (1.0, "b")), SkipReason.TIE),
        (_turn((0.0, "a"), (-0.0, "b")), SkipReason.TIE),
        (_turn((2.0, "a"), (1.0, " a\n")), SkipReason.IDENTICAL_TEXT),
        (_turn((1.0, "a"), (1.0, "a")), SkipReason.IDENTICAL_TEXT),
        (_turn((1.2, "a"), (1.0, "b")), SkipReason.BELOW_MIN_SCORE_DIFF),
        (_turn((sys.float_info.max, "a"), (-sys.float_info.max, "b")), SkipReason.SCORE_DIFF_NOT_FINITE),
    ],
)
def test_two_candidates_that_are_no_pair_are_counted_under_the_reason(
    turn: Turn, reason: SkipReason, exhaustive: bool
) -> None:
    result = make_pairs([turn], PairingRules(exhaustive_pairs=exhaustive, min_score_diff=0.5))
    assert result.pairs == []
    assert +result.skipped == {reason: 1}


def test_a_margin_equal_to_the_smallest_allowed_is_enough() -> None:
    assert len(make_pairs([make_turn([1.5, 1.0])], PairingRules(min_score_diff=0.5)).pairs) == 1


def test_neighbouring_denormals_are_a_pair() -> None:
    assert len(make_pairs([make_turn([0.0, 5e-324])], PairingRules()).pairs) == 1


def test_the_limit_keeps_the_largest_margins_and_counts_the_rest() -> None:
    result = make_pairs([make_turn([0.0, 1.0, 3.0])], PairingRules(max_pairs_per_turn=2))
    assert [pair.margin for pair in result.pairs] == [3.0, 2.0]
    assert result.skipped == {SkipReason.OVER_MAX_PAIRS_PER_TURN: 1}


@pytest.mark.parametrize("scores", [[], [1.0]])
@pytest.mark.parametrize("exhaustive", [True, False])
def test_a_turn_of_fewer_than_two_candidates_has_no_pairs(scores: list[float], exhaustive: bool) -> None:
    result = make_pairs([make_turn(scores)], PairingRules(exhaustive_pairs=exhaustive))
    assert (result.pairs, result.skipped.total()) == ([], 0)


def test_candidates_of_different_turns_never_meet() -> None:
    assert make_pairs([make_turn([1.0], turn_id="a"), make_turn([2.0], turn_id="b")], PairingRules()).pairs == []


@pytest.mark.parametrize("bound", [-0.1, nan, inf, -inf])
def test_a_smallest_margin_that_no_pair_could_meet_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match=f"min_score_diff .* got {bound!r}"):
        PairingRules(min_score_diff=bound)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_pair_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_pairs_per_turn .* got {limit}"):
        PairingRules(max_pairs_per_turn=limit)
