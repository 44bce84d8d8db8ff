import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.comparisons import Comparison, Winner, standings
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason, pair_turn
from nat_dpo_pipeline.core.rewards import agreement
from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.core.ties import is_higher

SCORES = st.floats(allow_nan=False, allow_infinity=False)
EQUAL_BUT_FOR_ROUNDING = [
    (0.1 + 0.2, 0.3),
    (1.0, 0.9999999999999998),
    (-0.3, -0.1 - 0.2),
    (sum([0.1] * 10_000), 1000.0),
    (0.0, -0.0),
]


def _turn(*scores: float) -> Turn:
    return Turn("e", "t", "q", [Candidate("e", "t", n, "q", f"answer {n}", score) for n, score in enumerate(scores)])


@pytest.mark.parametrize(("one", "other"), EQUAL_BUT_FOR_ROUNDING)
def test_rounding_makes_no_score_higher(one: float, other: float) -> None:
    assert not is_higher(one, other)
    assert not is_higher(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [(0.8, 0.7), (1e-30, 0.0), (0.0, -5e-324), (sys.float_info.max, -sys.float_info.max), (1.00001, 1)],
)
def test_a_real_difference_does(one: float, other: float) -> None:
    assert is_higher(one, other)
    assert not is_higher(other, one)


@given(SCORES, SCORES)
def test_at_most_one_of_two_is_higher_and_only_if_it_is(one: float, other: float) -> None:
    assert is_higher(one, other) + is_higher(other, one) <= (one != other)
    assert one > other or not is_higher(one, other)


@pytest.mark.parametrize("strategy", list(Strategy))
@pytest.mark.parametrize("length_penalty", [0.0, 0.5])
def test_scores_that_differ_by_rounding_are_a_tie_to_every_strategy(strategy: Strategy, length_penalty: float) -> None:
    skipped: Counter[SkipReason] = Counter()
    rules = PairingRules(strategy=strategy, length_penalty=length_penalty)
    assert pair_turn(_turn(0.1 + 0.2, 0.3), rules, skipped) == []
    assert skipped == {SkipReason.TIE: 1}


@pytest.mark.parametrize(
    "strategy", [Strategy.BEST_VS_SECOND, Strategy.BEST_VS_RANDOM, Strategy.MEAN_MINUS_2_SIGMA, Strategy.BEST_VS_WORST]
)
def test_the_lower_ones_are_below_the_best_by_more_than_rounding(strategy: Strategy) -> None:
    (pair,) = pair_turn(_turn(0.3, 0.1 + 0.2, 0.1), PairingRules(strategy=strategy), Counter())
    assert (pair.chosen.score, pair.rejected.score) == (0.1 + 0.2, 0.1)


def test_a_winner_whose_own_scores_tie_stays_ahead() -> None:
    named = Comparison(Winner.FIRST, (0.1 + 0.2, 0.3), lead=1.0)
    first, second = standings(2, {(0, 1): named, (1, 0): named.turned()})
    assert first is not None
    assert second is not None
    assert first.value - second.value == pytest.approx(1.0)


def test_members_that_differ_by_rounding_tie() -> None:
    assert agreement([{"a": 0.1 + 0.2, "b": 1.0}, {"a": 0.3, "b": 1.0}]) == [1.0, 1.0]
