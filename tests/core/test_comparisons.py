from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.comparisons import Comparison, Standing, Winner, standings

WINNERS = st.sampled_from(Winner)
SCORES = st.integers(1, 5).map(float)
# A generative reward model always ranks one of the two higher, by 0.5 to 2.5 points.
GRADED = st.builds(
    Comparison,
    st.sampled_from([Winner.FIRST, Winner.SECOND]),
    st.tuples(SCORES, SCORES),
    st.sampled_from([0.5, 1.5, 2.5]),
)


def _better(one: float, other: float) -> Winner:
    return Winner.TIE if one == other else Winner.FIRST if one > other else Winner.SECOND


def _judged(qualities: list[int]) -> dict[tuple[int, int], Comparison]:
    orders = permutations(range(len(qualities)), 2)
    return {(one, other): Comparison(_better(qualities[one], qualities[other])) for one, other in orders}


def _values(found: list[Standing | None]) -> list[float]:
    return [standing.value for standing in found if standing is not None]


@given(GRADED | st.builds(Comparison, WINNERS))
def test_turning_a_comparison_twice_gives_it_back(comparison: Comparison) -> None:
    assert comparison.turned().turned() == comparison


@given(st.lists(st.integers(0, 3), min_size=2, max_size=6))
def test_a_consistent_judge_ranks_the_responses_as_it_sees_them(qualities: list[int]) -> None:
    values = _values(standings(len(qualities), _judged(qualities)))
    for one, other in combinations(range(len(qualities)), 2):
        assert _better(values[one], values[other]) is _better(qualities[one], qualities[other])
    assert sum(values) == pytest.approx(len(qualities) / 2)
    assert all(0 <= value <= 1 for value in values)


@given(st.integers(2, 6), WINNERS)
def test_a_judge_that_prefers_a_place_ties_them_all(count: int, winner: Winner) -> None:
    comparisons = {order: Comparison(winner) for order in permutations(range(count), 2)}
    assert _values(standings(count, comparisons)) == [0.5] * count


@given(st.integers(2, 5), st.data())
def test_values_lie_between_0_and_1_and_every_comparison_shares_one_point(count: int, data: st.DataObject) -> None:
    orders = list(permutations(range(count), 2))
    values = _values(standings(count, {order: Comparison(data.draw(WINNERS)) for order in orders}))
    assert sum(values) == pytest.approx(count / 2)
    assert all(0 <= value <= 1 for value in values)


def test_a_response_counts_where_it_was_compared_in_both_orders() -> None:
    comparisons = _judged([3, 2, 1])
    del comparisons[0, 2]
    assert standings(3, comparisons) == [Standing(1.0), Standing(0.5), Standing(0.0)]
    del comparisons[1, 0]
    assert standings(3, comparisons) == [None, Standing(1.0), Standing(0.0)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_without_comparisons_no_response_stands(count: int) -> None:
    assert standings(count, {}) == [None] * count


def test_two_responses_have_their_mean_scores_where_these_rank_them_as_the_winner_does() -> None:
    comparisons = {
        (0, 1): Comparison(Winner.FIRST, (5.0, 3.0), 1.5),
        (1, 0): Comparison(Winner.SECOND, (2.0, 4.0), 0.5),
    }
    assert standings(2, comparisons) == [Standing(4.5, 4.5), Standing(2.5, 2.5)]


def test_a_winner_whose_own_score_is_no_better_is_ahead_by_its_lead() -> None:
    comparisons = {
        (0, 1): Comparison(Winner.SECOND, (4.0, 4.0), 0.5),
        (1, 0): Comparison(Winner.FIRST, (3.0, 4.0), 1.5),
    }
    assert standings(2, comparisons) == [Standing(3.25, 4.0), Standing(4.25, 3.5)]


@given(GRADED, GRADED)
def test_of_two_responses_the_winner_has_more_and_a_tie_the_same(forward: Comparison, backward: Comparison) -> None:
    values = _values(standings(2, {(0, 1): forward, (1, 0): backward}))
    agreed = forward.winner is backward.turned().winner
    assert _better(*values) is (forward.winner if agreed else Winner.TIE)


@given(st.data())
def test_more_responses_have_the_share_they_beat_and_their_mean_scores_beside_it(data: st.DataObject) -> None:
    comparisons = {order: data.draw(GRADED) for order in permutations(range(3), 2)}
    found = standings(3, comparisons)
    bare = {order: Comparison(comparison.winner) for order, comparison in comparisons.items()}
    assert _values(found) == _values(standings(3, bare))
    assert all(standing is not None and 1 <= (standing.individual or 0) <= 5 for standing in found)
