import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.pairs import PairingRules, SkipReason, make_pairs, pair_turn, possible_pairs
from nat_dpo_pipeline.core.strategies import Strategy, best_vs_random, mean_minus_2_sigma, propose, rank

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "magpie_5x5_armorm.jsonl"
STRATEGIES = st.sampled_from(list(Strategy))
SCORES = st.integers(-3, 3).map(float) | st.floats(allow_nan=False, allow_infinity=False)


def _turn(scores: list[float], turn_id: str = "turn", lengths: list[int] | None = None) -> Turn:
    sizes = lengths or [9] * len(scores)
    return Turn(
        "example",
        turn_id,
        "q",
        [
            Candidate("example", turn_id, place, "q", f"{place}".ljust(size, "x"), score)
            for place, (score, size) in enumerate(zip(scores, sizes, strict=True))
        ],
    )


TURNS = st.lists(st.lists(SCORES, max_size=8), max_size=4).map(
    lambda drawn: [_turn(scores, f"turn-{place}") for place, scores in enumerate(drawn)]
)


def _places(turn: Turn, rules: PairingRules) -> list[tuple[int, int]]:
    return [(pair.chosen.candidate_index, pair.rejected.candidate_index) for pair in pair_turn(turn, rules, Counter())]


def _real() -> list[Turn]:
    """The candidates as far as pairing looks at them: ids and scores."""
    turns = []
    for example_id, (scores, _) in zip(IDS, RANKINGS, strict=True):
        responses = [
            Candidate(example_id, "turn", place, "p", f"response {place}", score) for place, score in enumerate(scores)
        ]
        turns.append(Turn(example_id, "turn", "p", responses))
    return turns


# Five prompts of Magpie, five responses each, scored by ArmoRM.
IDS = (
    "8cabba98-e7fa-52f7-a778-ab847f36f123",
    "d668c3c7-b846-5a56-a45a-057df0cdf61d",
    "df1d3e99-99a6-5292-955e-4392d6e6d81e",
    "8c617c92-de2e-536a-a347-9b92b353c760",
    "9dd10bcf-5fa8-53a6-b520-a96234989e23",
)
# The scores of each prompt, and its candidates from the best to the worst, read off by hand.
RANKINGS = [
    ([0.11279296875, 0.107421875, 0.10791015625, 0.11669921875, 0.11474609375], [3, 4, 0, 2, 1]),
    ([0.09423828125, 0.09033203125, 0.09619140625, 0.0888671875, 0.09326171875], [2, 0, 4, 1, 3]),
    ([0.130859375, 0.1318359375, 0.1162109375, 0.1298828125, 0.138671875], [4, 1, 0, 3, 2]),
    ([0.16796875, 0.1513671875, 0.166015625, 0.140625, 0.1640625], [0, 2, 4, 1, 3]),
    ([0.1142578125, 0.11572265625, 0.146484375, 0.115234375, 0.123046875], [2, 4, 1, 3, 0]),
]
# Chosen and rejected of each prompt. No score of five is further than 2 standard deviations from their mean, so that
# the worst is nearest to mean - 2 sigma: .1045, .0873, .1148, .1371 and .0986.
EXPECTED = {
    Strategy.BEST_VS_WORST: [{(3, 1)}, {(2, 3)}, {(4, 2)}, {(0, 3)}, {(2, 0)}],
    Strategy.BEST_VS_SECOND: [{(3, 4)}, {(2, 0)}, {(4, 1)}, {(0, 2)}, {(2, 4)}],
    Strategy.MEAN_MINUS_2_SIGMA: [{(3, 1)}, {(2, 3)}, {(4, 2)}, {(0, 3)}, {(2, 0)}],
    Strategy.ADJACENT: [
        {(3, 4), (4, 0), (0, 2), (2, 1)},
        {(2, 0), (0, 4), (4, 1), (1, 3)},
        {(4, 1), (1, 0), (0, 3), (3, 2)},
        {(0, 2), (2, 4), (4, 1), (1, 3)},
        {(2, 4), (4, 1), (1, 3), (3, 0)},
    ],
    Strategy.EXHAUSTIVE: [
        {(3, 4), (3, 0), (3, 2), (3, 1), (4, 0), (4, 2), (4, 1), (0, 2), (0, 1), (2, 1)},
        {(2, 0), (2, 4), (2, 1), (2, 3), (0, 4), (0, 1), (0, 3), (4, 1), (4, 3), (1, 3)},
        {(4, 1), (4, 0), (4, 3), (4, 2), (1, 0), (1, 3), (1, 2), (0, 3), (0, 2), (3, 2)},
        {(0, 2), (0, 4), (0, 1), (0, 3), (2, 4), (2, 1), (2, 3), (4, 1), (4, 3), (1, 3)},
        {(2, 4), (2, 1), (2, 3), (2, 0), (4, 1), (4, 3), (4, 0), (1, 3), (1, 0), (3, 0)},
    ],
}


# With seed 0: `printf "(0, '%s', 'turn')" ID | sha256sum` modulo 4 is 1, 0, 3, 1, 0, counted from the second best.
DRAWN = [[(3, 0)], [(2, 0)], [(4, 2)], [(0, 4)], [(2, 4)]]


def test_the_real_candidates_are_ranked_as_read_off_by_hand() -> None:
    for turn, (_, ranking) in zip(_real(), RANKINGS, strict=True):
        assert [one.candidate.candidate_index for one in rank(turn.candidates)] == ranking


@pytest.mark.skipif(not DATA.is_file(), reason=f"{DATA} is not there")
def test_ids_and_scores_are_those_of_the_file() -> None:
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    assert tuple(row["id"] for row in rows) == IDS
    assert [[one["score"] for one in row["candidates"]] for row in rows] == [scores for scores, _ in RANKINGS]


@pytest.mark.parametrize("strategy", EXPECTED)
def test_real_candidates_are_paired_as_worked_out_by_hand(strategy: Strategy) -> None:
    turns = _real()
    assert [set(_places(turn, PairingRules(strategy=strategy))) for turn in turns] == EXPECTED[strategy]
    result = make_pairs(turns, PairingRules(strategy=strategy))
    assert len(result.pairs) == sum(map(len, EXPECTED[strategy]))
    assert len(result.pairs) + result.skipped.total() == 50


def test_the_best_of_real_candidates_meets_one_at_random_that_the_seed_and_the_ids_fix() -> None:
    turns = _real()
    found = [_places(turn, PairingRules(strategy=Strategy.BEST_VS_RANDOM)) for turn in turns]
    assert found == DRAWN
    assert [_places(turn, PairingRules(strategy=Strategy.BEST_VS_RANDOM, seed=1)) for turn in turns] != found


def test_mean_minus_2_sigma_passes_over_an_outlier() -> None:
    # mean 9.35, sigma 2.33, so that 6.0 is nearest to 4.69 and 0.0 far off
    turn = _turn([0.0, 6.0, *[10.0] * 17, 11.0])
    assert _places(turn, PairingRules(strategy=Strategy.MEAN_MINUS_2_SIGMA)) == [(19, 1)]
    assert _places(turn, PairingRules(strategy=Strategy.BEST_VS_WORST)) == [(19, 0)]


def test_of_equal_scores_the_last_to_arrive_is_the_nearest_to_mean_minus_2_sigma() -> None:
    ((_, rejected),) = mean_minus_2_sigma(rank(_turn([3.0, 1.0, -3.0, -3.0, 2.0]).candidates))
    assert rejected.candidate.candidate_index == 3


@given(st.lists(SCORES, min_size=2, max_size=5))
def test_of_five_or_fewer_the_worst_is_the_nearest_to_mean_minus_2_sigma(scores: list[float]) -> None:
    ((best, rejected),) = mean_minus_2_sigma(rank(_turn(scores).candidates))
    assert (best.value, rejected.value) == (max(scores), min(scores))


@given(TURNS, STRATEGIES, st.integers(0, 3), st.sampled_from([0.0, 0.5, 1000.0]))
def test_a_strategy_gives_pairs_whose_chosen_scored_higher_and_counts_the_rest(
    turns: list[Turn], strategy: Strategy, seed: int, penalty: float
) -> None:
    rules = PairingRules(strategy=strategy, seed=seed, length_penalty=penalty)
    result = make_pairs(turns, rules)
    assert all(pair.chosen.score > pair.rejected.score for pair in result.pairs)
    assert len(result.pairs) + result.skipped.total() == sum(map(possible_pairs, turns))
    assert all(result.skipped.values())


@given(TURNS, STRATEGIES, st.data())
def test_the_order_of_the_turns_has_no_say_in_their_pairs(
    turns: list[Turn], strategy: Strategy, data: st.DataObject
) -> None:
    rules = PairingRules(strategy=strategy)
    shuffled = data.draw(st.permutations(turns))
    assert {turn.turn_id: _places(turn, rules) for turn in shuffled} == {
        turn.turn_id: _places(turn, rules) for turn in turns
    }
    assert make_pairs(shuffled, rules).skipped == make_pairs(turns, rules).skipped


@given(TURNS, STRATEGIES)
def test_every_strategy_makes_some_of_the_exhaustive_pairs_and_some_where_there_are_any(
    turns: list[Turn], strategy: Strategy
) -> None:
    for turn in turns:
        made, all_of_them = _places(turn, PairingRules(strategy=strategy)), _places(turn, PairingRules())
        assert set(made) <= set(all_of_them)
        # A best that is infinitely far from the others has no margin.
        if all_of_them and not make_pairs([turn], PairingRules()).skipped[SkipReason.SCORE_DIFF_NOT_FINITE]:
            assert made


@given(TURNS, STRATEGIES)
def test_strategies_that_name_the_best_choose_it(turns: list[Turn], strategy: Strategy) -> None:
    if strategy not in (Strategy.EXHAUSTIVE, Strategy.ADJACENT):
        for pair in make_pairs(turns, PairingRules(strategy=strategy)).pairs:
            turn = next(turn for turn in turns if turn.turn_id == pair.chosen.turn_id)
            assert pair.chosen.score == max(candidate.score for candidate in turn.candidates)


@given(TURNS)
def test_exhaustive_pairs_is_a_strategy_by_another_name(turns: list[Turn]) -> None:
    for exhaustive, strategy in ((True, Strategy.EXHAUSTIVE), (False, Strategy.BEST_VS_WORST)):
        named = make_pairs(turns, PairingRules(strategy=strategy))
        assert named == make_pairs(turns, PairingRules(exhaustive_pairs=exhaustive))
        # A bound that bars nothing takes the way of all other rules.
        assert named == make_pairs(turns, PairingRules(strategy=strategy, max_length_ratio=100.0))


@pytest.mark.parametrize("strategy", Strategy)
def test_a_strategy_may_be_given_by_its_name(strategy: Strategy) -> None:
    turn = _turn([1.0, 3.0, 2.0, 4.0])
    assert _places(turn, PairingRules(strategy=str(strategy))) == _places(turn, PairingRules(strategy=strategy))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'best' is not a valid Strategy"):
        PairingRules(strategy="best")  # type: ignore[arg-type]


def test_the_second_is_the_next_lower_score() -> None:
    assert _places(_turn([1.0, 3.0, 3.0, 2.0]), PairingRules(strategy=Strategy.BEST_VS_SECOND)) == [(1, 3)]


def test_neighbours_of_equal_score_are_a_tie() -> None:
    result = make_pairs([_turn([1.0, 3.0, 3.0])], PairingRules(strategy=Strategy.ADJACENT))
    assert [(pair.chosen.score, pair.rejected.score) for pair in result.pairs] == [(3.0, 1.0)]
    assert result.skipped == {SkipReason.NOT_ADJACENT: 1, SkipReason.TIE: 1}


@pytest.mark.parametrize("strategy", Strategy)
def test_equal_scores_only_are_ties_for_every_strategy(strategy: Strategy) -> None:
    result = make_pairs([_turn([1.0, 1.0, 1.0])], PairingRules(strategy=strategy))
    assert result.pairs == []
    assert result.skipped[SkipReason.TIE] >= 1
    assert result.skipped.total() == 3


@pytest.mark.parametrize("strategy", Strategy)
def test_less_than_two_candidates_are_no_pair(strategy: Strategy) -> None:
    assert propose(strategy, rank(_turn([1.0]).candidates)) == ()
    assert propose(strategy, []) == ()


@given(st.integers(), st.text(max_size=3))
def test_the_draw_depends_on_the_seed_and_the_ids_alone(seed: int, turn_id: str) -> None:
    ((_, one),) = best_vs_random(rank(_turn([4.0, 3.0, 2.0, 1.0], turn_id).candidates), seed)
    ((_, other),) = best_vs_random(rank(_turn([8.0, 6.0, 4.0, 2.0], turn_id).candidates), seed)
    assert one.candidate.candidate_index == other.candidate.candidate_index > 0


def test_the_draw_reaches_all_of_the_others_about_equally_often() -> None:
    draws = Counter(
        best_vs_random(rank(_turn([4.0, 3.0, 2.0, 1.0], f"turn-{place}").candidates), 0)[0][1].value
        for place in range(3000)
    )
    assert set(draws) == {3.0, 2.0, 1.0}
    assert min(draws.values()) > 900


def test_a_length_penalty_ranks_but_leaves_the_scores_as_they_are() -> None:
    turn = _turn([3.0, 2.9, 1.0], lengths=[2000, 100, 100])
    plain = PairingRules(strategy=Strategy.BEST_VS_WORST)
    assert _places(turn, plain) == [(0, 2)]
    (pair,) = pair_turn(turn, PairingRules(strategy=Strategy.BEST_VS_WORST, length_penalty=0.5), Counter())
    assert (pair.chosen.candidate_index, pair.chosen.score, pair.margin) == (1, 2.9, 2.9 - 1.0)


def test_a_penalty_that_turns_the_order_makes_no_pair() -> None:
    turn = _turn([3.0, 2.9], lengths=[2000, 100])
    assert make_pairs([turn], PairingRules(length_penalty=0.5)).skipped == {SkipReason.TURNED_BY_LENGTH_PENALTY: 1}


def test_equal_scores_stay_a_tie_whatever_the_penalty() -> None:
    turn = _turn([3.0, 3.0], lengths=[2000, 100])
    assert make_pairs([turn], PairingRules(length_penalty=0.5)).skipped == {SkipReason.TIE: 1}


def test_scores_that_are_equal_with_the_penalty_are_a_tie() -> None:
    turn = _turn([4.0, 3.0], lengths=[2000, 1000])
    assert make_pairs([turn], PairingRules(length_penalty=1.0)).skipped == {SkipReason.TIE: 1}
