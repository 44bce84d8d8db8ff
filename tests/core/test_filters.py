from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.core.pairs import PairingRules, PreferencePair, SkipReason, make_pairs, pair_turn, possible_pairs
from nat_dpo_pipeline.core.strategies import Strategy

FLAWS = st.sampled_from([None, "truncated", "refusal", "empty", "mine", 3])
MEMBERS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3).map(float), max_size=3)
TEXTS = st.sampled_from(["", " ", "yes", "yes.", "The answer is 41.", "The answer is 42.", "x" * 40]) | st.text(
    max_size=5
)


@st.composite
def _turns(draw: st.DrawFn) -> Turn:
    made = draw(st.lists(st.tuples(st.integers(0, 5), TEXTS, FLAWS, MEMBERS), max_size=6))
    return Turn(
        "e",
        "t",
        "q",
        [
            Candidate(
                "e", "t", place, "q", text, float(score), metadata={"flaw": flaw, "member_scores": members, "x": 1}
            )
            for place, (score, text, flaw, members) in enumerate(made)
        ],
    )


#: Each rule, and what then holds for every pair.
RULES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any, PreferencePair], bool]]] = {
    "max_score_diff": (st.integers(1, 3), lambda limit, pair: pair.margin <= limit),
    "min_score_diff": (st.integers(0, 3), lambda limit, pair: pair.margin >= limit),
    "min_chosen_score": (st.integers(0, 5), lambda limit, pair: pair.chosen.score >= limit),
    "min_rejected_score": (st.integers(0, 5), lambda limit, pair: pair.rejected.score >= limit),
    "min_best_score": (st.integers(0, 5), lambda _limit, _pair: True),
    "min_rejected_length": (st.integers(1, 20), lambda limit, pair: len(pair.rejected.response) >= limit),
    "min_agreement": (st.floats(0.1, 1.0), lambda limit, pair: _agreement(pair) >= limit),
    "max_length_ratio": (
        st.floats(1.0, 10.0),
        lambda limit, pair: (
            1 / limit <= len(pair.chosen.response) / len(pair.rejected.response) * (1 + 1e-12)
            and len(pair.chosen.response) / len(pair.rejected.response) <= limit * (1 + 1e-12)
        ),
    ),
    "length_penalty": (st.floats(0.0, 1000.0), lambda _limit, pair: pair.margin > 0.0),
    "near_duplicate": (st.floats(0.3, 1.0), lambda _limit, _pair: True),
}


def _agreement(pair: PreferencePair) -> float:
    ours: Any = pair.chosen.metadata["member_scores"]
    theirs: Any = pair.rejected.metadata["member_scores"]
    above = [name for name in ours if name in theirs and ours[name] > theirs[name]]
    return len(above) / len({*ours, *theirs})


@pytest.mark.parametrize("name", RULES)
@given(st.data())
def test_a_rule_only_removes_and_holds_for_what_is_left(name: str, data: st.DataObject) -> None:
    turn = data.draw(_turns())
    values, holds = RULES[name]
    limit = data.draw(values)
    flawed = data.draw(st.booleans())
    without = make_pairs([turn], PairingRules(pair_flawed=flawed))
    result = make_pairs([turn], PairingRules(pair_flawed=flawed, **{name: limit}))
    assert set(map(_places, result.pairs)) <= set(map(_places, without.pairs))
    assert all(holds(limit, pair) for pair in result.pairs)
    assert all(pair.chosen.score > pair.rejected.score for pair in result.pairs)
    assert len(result.pairs) + result.skipped.total() == possible_pairs(turn)


@given(_turns(), st.booleans(), st.sampled_from(list(Strategy)))
def test_blank_texts_never_pair_and_flawed_ones_only_when_they_shall(
    turn: Turn, pair_flawed: bool, strategy: Strategy
) -> None:
    result = make_pairs([turn], PairingRules(pair_flawed=pair_flawed, strategy=strategy))
    assert len(result.pairs) + result.skipped.total() == possible_pairs(turn)
    for pair in result.pairs:
        for candidate in pair[:2]:
            assert candidate.response.strip()
            assert pair_flawed or candidate.metadata["flaw"] not in ("truncated", "refusal", "empty")


def _places(pair: PreferencePair) -> tuple[int, int]:
    return pair.chosen.candidate_index, pair.rejected.candidate_index


def _one(score: float, text: str = "some text", place: int = 0, **metadata: object) -> Candidate:
    return Candidate("e", "t", place, "q", text, score, metadata=metadata)


def _skipped(rules: PairingRules, *candidates: Candidate) -> dict[SkipReason, int]:
    skipped: Counter[SkipReason] = Counter()
    pair_turn(Turn("e", "t", "q", candidates), rules, skipped)
    return dict(skipped)


@pytest.mark.parametrize(
    ("rules", "better", "worse", "reason"),
    [
        ({"max_score_diff": 1.0}, _one(3.0, "a"), _one(1.5, "b"), SkipReason.OVER_MAX_SCORE_DIFF),
        ({"max_score_diff": 1.5}, _one(3.0, "a"), _one(1.5, "b"), None),
        ({"min_chosen_score": 3.1}, _one(3.0, "a"), _one(1.5, "b"), SkipReason.BELOW_MIN_CHOSEN_SCORE),
        ({"min_chosen_score": 3.0}, _one(3.0, "a"), _one(1.5, "b"), None),
        ({"min_best_score": 3.1}, _one(3.0, "a"), _one(1.5, "b"), SkipReason.BELOW_MIN_BEST_SCORE),
        ({"min_best_score": 3.0}, _one(3.0, "a"), _one(1.5, "b"), None),
        ({"min_rejected_score": 2.0}, _one(3.0, "a"), _one(1.5, "b"), SkipReason.BELOW_MIN_REJECTED_SCORE),
        ({"min_rejected_length": 2}, _one(3.0, "aa"), _one(1.5, "b"), SkipReason.BELOW_MIN_REJECTED_LENGTH),
        ({"min_rejected_length": 2}, _one(3.0, "a"), _one(1.5, "bb"), None),
        ({"max_length_ratio": 2.0}, _one(3.0, "aaa"), _one(1.5, "b"), SkipReason.OVER_MAX_LENGTH_RATIO),
        ({"max_length_ratio": 2.0}, _one(3.0, "a"), _one(1.5, "bbb"), SkipReason.OVER_MAX_LENGTH_RATIO),
        ({"max_length_ratio": 3.0}, _one(3.0, "a"), _one(1.5, "bbb"), None),
        (
            {"near_duplicate": 0.9},
            _one(3.0, "The answer is 41."),
            _one(1.5, "The  answer is\n42."),
            SkipReason.NEAR_DUPLICATE,
        ),
        ({"near_duplicate": 0.95}, _one(3.0, "The answer is 41."), _one(1.5, "The answer is 42."), None),
        ({"near_duplicate": 0.9}, _one(3.0, "\ud800"), _one(1.5, "\udc00"), None),
        ({}, _one(3.0, "a"), _one(1.5, "\u2003\n"), SkipReason.BLANK),
        ({"pair_flawed": True}, _one(3.0, "a"), _one(1.5, ""), SkipReason.BLANK),
        ({}, _one(3.0, "a", flaw="truncated"), _one(1.5, "b"), SkipReason.FLAWED),
        ({"pair_flawed": True}, _one(3.0, "a", flaw="truncated"), _one(1.5, "b"), None),
        ({}, _one(3.0, "a", flaw=None), _one(1.5, "b", flaw="of my own"), None),
        ({}, _one(3.0, "a", flaw=["truncated"]), _one(1.5, "b"), None),
        ({"min_agreement": 0.5}, _one(3.0, "a"), _one(1.5, "b"), SkipReason.NO_MEMBER_SCORES),
        (
            {"min_agreement": 0.1},
            _one(3.0, "a", member_scores={"x": 1.0, "y": "high"}),
            _one(1.5, "b", member_scores={"y": 1.0}),
            SkipReason.NO_MEMBER_SCORES,
        ),
        (
            {"min_agreement": 0.6},
            _one(3.0, "a", member_scores={"x": 2.0, "y": 1.0}),
            _one(1.5, "b", member_scores={"x": 1.0, "y": 1.0}),
            SkipReason.BELOW_MIN_AGREEMENT,
        ),
        (
            {"min_agreement": 0.5},
            _one(3.0, "a", member_scores={"x": 2.0, "y": 1.0}),
            _one(1.5, "b", member_scores={"x": 1.0, "y": 1.0}),
            None,
        ),
        (
            {"min_agreement": 0.6},
            _one(3.0, "a", member_scores={"x": 2.0, "y": 1.0}),
            _one(1.5, "b", member_scores={"x": 1.0}),
            SkipReason.BELOW_MIN_AGREEMENT,
        ),
    ],
)
def test_a_rule_leaves_out_what_it_names(
    rules: dict[str, Any], better: Candidate, worse: Candidate, reason: SkipReason | None
) -> None:
    assert _skipped(PairingRules(**rules), worse, better) == ({} if reason is None else {reason: 1})


def test_the_worst_that_is_flawed_makes_room_for_the_next() -> None:
    turn = Turn("e", "t", "q", [_one(3.0, "a", 0), _one(2.0, "b", 1), _one(1.0, "c", 2, flaw="refusal")])
    result = make_pairs([turn], PairingRules(strategy=Strategy.BEST_VS_WORST))
    assert [_places(pair) for pair in result.pairs] == [(0, 1)]
    assert result.skipped == {SkipReason.FLAWED: 2}
    assert result.pairs[0].num_candidates == 3


def test_the_best_that_counts_is_one_that_can_be_paired() -> None:
    turn = [_one(5.0, "a", 0, flaw="truncated"), _one(2.0, "b", 1), _one(1.0, "c", 2)]
    assert _skipped(PairingRules(min_best_score=3.0), *turn) == {
        SkipReason.FLAWED: 2,
        SkipReason.BELOW_MIN_BEST_SCORE: 1,
    }


@given(_turns())
def test_pairs_that_are_too_much_alike_are_judged_the_same_in_both_orders(turn: Turn) -> None:
    rules = PairingRules(near_duplicate=0.8, pair_flawed=True)
    for one, other in combinations(turn.candidates, 2):
        swapped = [
            Candidate("e", "t", 0, "q", text, score)
            for text, score in ((one.response, other.score), (other.response, one.score))
        ]
        assert _skipped(rules, one, other) == _skipped(rules, *swapped)


def _impossible() -> list[tuple[str, float]]:
    nan, inf = float("nan"), float("inf")
    return [
        *(("max_score_diff", value) for value in (0.0, -1.0, nan, inf)),
        *(
            (name, value)
            for name in ("min_chosen_score", "min_best_score", "min_rejected_score")
            for value in (nan, inf)
        ),
        *((name, value) for name in ("min_agreement", "near_duplicate") for value in (0.0, 1.1, nan)),
        *(("max_length_ratio", value) for value in (0.9, nan, inf)),
        ("min_rejected_length", 0),
        *(("length_penalty", value) for value in (-0.1, 1e7, nan)),
    ]


@pytest.mark.parametrize(("name", "value"), _impossible())
def test_a_bound_that_means_nothing_is_refused(name: str, value: float) -> None:
    rules: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} must be .*, got {value!r}"):
        PairingRules(**rules)


def test_bounds_that_leave_nothing_between_them_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_score_diff is 1.0, below min_score_diff, which is 2.0"):
        PairingRules(min_score_diff=2.0, max_score_diff=1.0)


def test_a_strategy_that_contradicts_best_against_worst_is_refused() -> None:
    with pytest.raises(ValueError, match="contradicts the strategy 'adjacent'"):
        PairingRules(exhaustive_pairs=False, strategy=Strategy.ADJACENT)
