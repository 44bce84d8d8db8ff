from collections.abc import Mapping

import pytest

from nat_dpo_pipeline.core.filters import FLAWS
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.generation.record import FailureReason
from nat_dpo_pipeline.generation.scorers import Score
from nat_dpo_pipeline.generation.turns import (
    Answered,
    Claim,
    Flaw,
    Question,
    Response,
    Sample,
    Scored,
    Subtopic,
    make_turn,
)
from nat_dpo_pipeline.testing import ScriptedModel

QUESTION = Question((Message("system", "Be brief."), Message("user", "Why?")), "Tea", "Green")


def _scored(index: int, value: float | None, members: Mapping[str, float] | None = None, **more: object) -> Scored:
    response = Response(QUESTION, index, f"response {index}", "writer", "m-1", **more)  # type: ignore[arg-type]
    if value is None:
        return Scored(response, reason="lost")
    return Scored(response, Score(value, {"helpfulness": value}, "r-1", members or {}))


def test_the_text_of_a_question_is_its_last_message() -> None:
    assert QUESTION.text == "Why?"


def test_what_is_on_its_way_is_shown_by_what_it_is_about() -> None:
    response = Response(QUESTION, 0, "So.", "writer", "m-1")
    sample = Sample(QUESTION, 0, ScriptedModel(lambda _: ""))
    assert {str(one) for one in (QUESTION, response, sample, Answered(QUESTION, (response,)))} == {"Why?"}
    assert str(Subtopic("Tea", "Green")) == "Green"


def test_a_claim_stands_until_it_is_withdrawn() -> None:
    tentative = Claim(is_settled=False)
    assert (tentative.is_settled, tentative.is_withdrawn) == (False, False)
    tentative.settle()
    assert (tentative.is_settled, tentative.is_withdrawn) == (True, False)
    withdrawn = Claim(is_settled=False)
    withdrawn.withdraw()
    assert (withdrawn.is_settled, withdrawn.is_withdrawn) == (True, True)


def test_questions_and_responses_are_equal_whatever_became_of_them() -> None:
    other = Question(QUESTION.messages, "Tea", "Green", Claim(is_settled=False))
    other.claim.withdraw()
    assert other == QUESTION


def test_a_turn_holds_candidates_and_apart_from_them_what_has_no_score() -> None:
    turn = make_turn("row", "question-0.0", QUESTION, [_scored(0, 2.0), _scored(1, None), _scored(2, 0.0)], None)
    assert [(c.candidate_index, c.score, c.response) for c in turn.candidates] == [
        (0, 2.0, "response 0"),
        (2, 0.0, "response 2"),
    ]
    assert [(one.response.index, one.reason) for one in turn.unscored] == [(1, "lost")]
    assert (turn.turn_id, turn.question, turn.set_aside) == ("question-0.0", QUESTION, None)


def test_a_candidate_says_all_that_is_known_of_it() -> None:
    scored = _scored(1, 2.0, {"one": 1.0, "two": 3.0}, flaw=Flaw.TRUNCATED, temperature=0.7)
    (candidate,) = make_turn("row", "question-0.0", QUESTION, [scored], None).candidates
    assert (candidate.example_id, candidate.turn_id, candidate.prompt) == ("row", "question-0.0", QUESTION.messages)
    assert (candidate.model, candidate.attributes) == ("m-1", {"helpfulness": 2.0})
    assert candidate.metadata == {
        "topic": "Tea",
        "subtopic": "Green",
        "llm": "writer",
        "reward_model": "r-1",
        "flaw": "truncated",
        "temperature": 0.7,
        "member_scores": {"one": 1.0, "two": 3.0},
        "agreement": None,  # with whom?
    }


def test_members_that_order_the_candidates_alike_agree() -> None:
    scored = [
        _scored(0, 2.0, {"one": 1.0, "two": 3.0, "three": 0.0}),
        _scored(1, 1.0, {"one": 0.0, "two": 2.0, "three": 9.0}),
    ]
    turn = make_turn("row", "question-0.0", QUESTION, scored, None)
    assert [candidate.metadata["agreement"] for candidate in turn.candidates] == [pytest.approx(2 / 3)] * 2


@pytest.mark.parametrize(
    ("scores", "least", "set_aside"),
    [
        ([2.9, 1.0], 3.0, "below_min_best_score"),
        ([3.0, 1.0], 3.0, None),
        ([-5.0], None, None),
        ([None], 3.0, None),  # it is not poor but unknown
        ([], 3.0, None),
    ],
)
def test_a_question_whose_best_response_is_poor_is_set_aside(
    scores: list[float | None], least: float | None, set_aside: str | None
) -> None:
    scored = [_scored(index, score) for index, score in enumerate(scores)]
    turn = make_turn("row", "question-0.0", QUESTION, scored, least)
    assert turn.set_aside == set_aside
    assert len(turn.candidates) == sum(score is not None for score in scores)


@pytest.mark.parametrize("flaw", Flaw)
def test_every_flaw_keeps_a_candidate_out_of_pairs_and_is_counted(flaw: Flaw) -> None:
    assert flaw in FLAWS
    assert flaw.failure in FailureReason


@pytest.mark.parametrize(
    ("text", "set_aside"), [("half of a pair \ud83d", "invalid_unicode"), (" ", "missing_prompt"), ("Why?", None)]
)
def test_a_question_that_no_dataset_can_hold_is_set_aside(text: str, set_aside: str | None) -> None:
    turn = make_turn("row", "question-0.0", Question((Message("user", text),)), [_scored(0, 2.0)], None)
    assert turn.set_aside == set_aside
