"""The last steps of the recipe, over responses that are there already."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rewards import Combination
from nat_dpo_pipeline.errors import DPOPipelineError, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import OnReply
from nat_dpo_pipeline.generation.ensembles import EnsembleScorer
from nat_dpo_pipeline.generation.inputs import Request
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.replies import read_reply
from nat_dpo_pipeline.generation.rewarding import rewarded
from nat_dpo_pipeline.generation.scorers import Score, Scorer, TurnScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings
from nat_dpo_pipeline.generation.steps import Item, Pipeline, Scatter
from nat_dpo_pipeline.generation.turns import Claim, Flaw, Question, Response, Turn

Said = str | tuple[str, Flaw]
FATAL = ModelError("no credit", fatal=True)


class Scored:
    """A scorer that says what `answers` holds by response; what is an error is raised."""

    def __init__(self, answers: Mapping[str, float | Exception]) -> None:
        self.asked: list[tuple[tuple[Message, ...], str]] = []
        self._answers = answers

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:
        self.asked.append((tuple(prompt), response))
        body = {"model": "r-1", "choices": [{}], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
        on_reply(read_reply(body, "reward"))
        answer = self._answers[response]
        if isinstance(answer, Exception):
            raise answer
        return Score(answer, {}, "r-1")


class Compared:
    """A scorer of turns: the longer the better, and what `instead` holds by response instead."""

    def __init__(self, instead: Mapping[str, DPOPipelineError] | None = None, fails: Exception | None = None) -> None:
        self.asked: list[list[str]] = []
        self._instead = instead or {}
        self._fails = fails

    async def score_turn(
        self, prompt: Sequence[Message], responses: Sequence[str], on_reply: OnReply
    ) -> list[Score | DPOPipelineError]:
        self.asked.append([*responses])
        assert prompt
        on_reply(read_reply({"choices": [{}]}, "judge"))
        if self._fails is not None:
            raise self._fails
        return [self._instead.get(text) or Score(float(len(text)), {}, "judge") for text in responses]


def _pipeline(said: Mapping[str, Sequence[Said]], withdraw: Callable[[Response], bool]) -> Pipeline:
    async def questions(item: Item[Request]) -> list[Question]:
        assert item.value.topic
        return [Question((Message("user", text),)) for text in said]

    async def responses(item: Item[Question]) -> list[Response]:
        question = item.value
        question.claim.is_asked = True
        found = [_response(question, index, one) for index, one in enumerate(said[question.text])]
        for response in filter(withdraw, found):
            response.claim.withdraw()
        return found

    return Scatter(questions) >> Scatter(responses)


def _response(question: Question, index: int, said: Said) -> Response:
    text, flaw = (said, None) if isinstance(said, str) else said
    return Response(question, index, text, "writer", "m-1", flaw, claim=Claim())


async def _turns(
    scorer: Scorer | TurnScorer,
    *said: Said,
    withdraw: Callable[[Response], bool] = lambda _: False,
    **settings: Any,
) -> tuple[list[Turn], GenerationRecord]:
    record = GenerationRecord()
    pipeline = rewarded(_pipeline({"Why?": said}, withdraw), scorer, RecipeSettings(**settings), record)
    items = pipeline.run([Request("Tea", example_id="row")], observer=record)
    return [item.value async for item in items], record


def _scores(turn: Turn) -> dict[str, float]:
    return {candidate.response: candidate.score for candidate in turn.candidates}


def _reasons(turn: Turn) -> dict[str, str | None]:
    return {one.response.text: one.reason for one in turn.unscored}


# Each response on its own.


async def test_every_response_is_scored_after_its_question() -> None:
    scorer = Scored({"So.": 2.0, "No.": 0.0})
    (turn,), record = await _turns(scorer, "So.", "No.")
    assert _scores(turn) == {"So.": 2.0, "No.": 0.0}
    assert scorer.asked == [((Message("user", "Why?"),), "So."), ((Message("user", "Why?"),), "No.")]
    assert (turn.turn_id, turn.candidates[0].example_id) == ("question-0", "row")
    used = record.usage["rewards", "reward"]
    assert (used.model, used.requests, used.prompt_tokens, used.completion_tokens) == ("r-1", 2, 4, 6)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelError("overloaded", overloaded=True), "model_error"),
        (ModelError("no credit", fatal=True), "model_error"),
        (ModelError("too long (request 17)"), "request_refused"),
        (ParseError("no number", "hm"), "unparsable_reply"),
    ],
)
async def test_a_failed_score_is_no_score_with_a_reason_and_never_0(error: DPOPipelineError, reason: str) -> None:
    (turn,), record = await _turns(Scored({"So.": 2.0, "No.": error}), "So.", "No.")
    assert _scores(turn) == {"So.": 2.0}
    assert _reasons(turn) == {"No.": reason}
    assert turn.unscored[0].detail == str(error)
    assert record.skips() == {"rewards": {reason: 1}}
    assert turn.unscored[0].score is None
    assert [(failure.step, failure.subject, failure.detail) for failure in record.failures] == [
        ("rewards", "Why?", str(error))
    ]


async def test_a_fatal_error_stops_the_run_and_is_told_once() -> None:
    (turn,), record = await _turns(Scored({"a": FATAL, "b": FATAL, "c": 1.0}), "a", "b", "c")
    assert _scores(turn) == {"c": 1.0}
    assert _reasons(turn) == {"a": "model_error", "b": "model_error"}
    assert (record.stopped, len(record.failures)) == ("no credit", 1)
    assert record.skips() == {"rewards": {"model_error": 2}}


@pytest.mark.parametrize(
    ("kept", "scored"),
    [
        ({}, ["a"]),
        ({"keep_truncated": True}, ["a", "cut"]),
        ({"keep_refusals": True}, ["a", "no"]),
        ({"keep_truncated": True, "keep_refusals": True}, ["a", "cut", "no"]),
    ],
)
@pytest.mark.parametrize("compares", [False, True])
async def test_flawed_responses_are_scored_only_when_they_are_kept(
    kept: dict[str, bool], scored: list[str], compares: bool
) -> None:
    scorer = Compared() if compares else Scored({"a": 1.0, "cut": 2.0, "no": 3.0})
    said = ["a", ("cut", Flaw.TRUNCATED), ("", Flaw.EMPTY), ("no", Flaw.REFUSAL)]
    (turn,), _ = await _turns(scorer, *said, **kept)
    asked = [text for texts in scorer.asked for text in texts] if isinstance(scorer, Compared) else scorer.asked
    if compares and len(scored) == 1:
        assert _reasons(turn).pop("a") == "nothing_to_compare_with"
        assert asked == []
    else:
        assert list(_scores(turn)) == scored
        assert len(asked) == len(scored)
    flaws = {"cut": "truncated", "": "empty", "no": "refusal"}
    assert {text: _reasons(turn)[text] for text in flaws if text not in scored} == {
        text: reason for text, reason in flaws.items() if text not in scored
    }


@pytest.mark.parametrize("scorer", [Scored({"a": 1.0, "b": 2.0}), Compared()])
async def test_a_withdrawn_response_is_neither_scored_nor_part_of_the_turn(scorer: Scored | Compared) -> None:
    (turn,), _ = await _turns(scorer, "a", "again", "b", withdraw=lambda response: response.text == "again")
    assert list(_scores(turn)) == ["a", "b"]
    assert turn.unscored == ()
    assert "again" not in str(scorer.asked)


@pytest.mark.parametrize("scorer", [Scored({}), Compared()])
async def test_a_question_that_was_asked_in_vain_is_an_empty_turn(scorer: Scored | Compared) -> None:
    (turn,), _ = await _turns(scorer)
    assert (turn.candidates, turn.unscored, turn.set_aside) == ((), (), None)


@pytest.mark.parametrize("scorer", [Scored({}), Compared()])
async def test_a_question_that_was_never_asked_is_no_turn(scorer: Scored | Compared) -> None:
    async def questions(item: Item[Request]) -> list[Question]:
        return [Question((Message("user", str(item.value)),))]

    async def responses(item: Item[Question]) -> list[Response]:
        assert item.value
        return []

    record = GenerationRecord()
    pipeline = rewarded(Scatter(questions) >> Scatter(responses), scorer, RecipeSettings(), record)
    assert [item async for item in pipeline.run([Request("Tea")], observer=record)] == []


async def test_a_question_whose_best_response_is_poor_is_set_aside() -> None:
    (poor,), _ = await _turns(Scored({"a": 2.0, "b": 1.0}), "a", "b", min_best_score=3.0)
    (good,), _ = await _turns(Scored({"a": 3.0, "b": 1.0}), "a", "b", min_best_score=3.0)
    assert (poor.set_aside, good.set_aside) == ("below_min_best_score", None)
    assert len(poor.candidates) == 2


# Several scorers.


async def test_the_members_of_an_ensemble_and_how_far_they_agree_are_on_the_candidate() -> None:
    members = {"one": Scored({"a": 4.0, "b": 1.0}), "two": Scored({"a": 2.0, "b": 3.0})}
    (turn,), record = await _turns(EnsembleScorer(members, Combination.WORST), "a", "b")
    assert _scores(turn) == {"a": 2.0, "b": 1.0}
    assert [candidate.metadata["member_scores"] for candidate in turn.candidates] == [
        {"one": 4.0, "two": 2.0},
        {"one": 1.0, "two": 3.0},
    ]
    assert [candidate.metadata["agreement"] for candidate in turn.candidates] == [0.5, 0.5]
    assert turn.candidates[0].metadata["reward_model"] == "r-1 + r-1"
    assert record.usage["rewards", "reward"].requests == 4


async def test_what_one_member_cannot_score_has_no_score() -> None:
    members = {"one": Scored({"a": 4.0, "b": 1.0}), "two": Scored({"a": 2.0, "b": ModelError("overloaded")})}
    (turn,), _ = await _turns(EnsembleScorer(members), "a", "b")
    assert _scores(turn) == {"a": 3.0}
    assert _reasons(turn) == {"b": "request_refused"}


# All responses to a question together.


async def test_responses_are_compared_with_one_another() -> None:
    scorer = Compared()
    (turn,), record = await _turns(scorer, "long one", "short", "the longest")
    assert scorer.asked == [["long one", "short", "the longest"]]
    assert [(c.candidate_index, c.score) for c in turn.candidates] == [(0, 8.0), (1, 5.0), (2, 11.0)]
    assert turn.turn_id == "question-0"
    assert turn.candidates[0].example_id == "row"
    assert record.usage["rewards", "judge"].requests == 1


async def test_what_cannot_be_compared_keeps_its_place() -> None:
    scorer = Compared({"b": ParseError("no verdict", "hm")})
    (turn,), record = await _turns(scorer, "aaa", "b", ("cut", Flaw.TRUNCATED), "cc")
    assert [(c.candidate_index, c.score) for c in turn.candidates] == [(0, 3.0), (3, 2.0)]
    assert [(one.response.index, one.reason) for one in turn.unscored] == [(1, "unparsable_reply"), (2, "truncated")]
    assert [failure.reply for failure in record.failures] == ["hm"]


async def test_a_single_response_has_nothing_to_be_compared_with() -> None:
    scorer = Compared()
    (turn,), record = await _turns(scorer, "a", ("", Flaw.EMPTY))
    assert _reasons(turn) == {"a": "nothing_to_compare_with", "": "empty"}
    assert scorer.asked == []
    assert record.failures == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FATAL, "model_error"),
        (ModelError("too long"), "request_refused"),
        (ParseError("no verdict", "hm"), "unparsable_reply"),
    ],
)
async def test_a_comparison_that_fails_leaves_all_responses_unscored(error: DPOPipelineError, reason: str) -> None:
    (turn,), record = await _turns(Compared(fails=error), "a", "b")
    assert turn.candidates == ()
    assert _reasons(turn) == {"a": reason, "b": reason}
    assert {one.detail for one in turn.unscored} == {str(error)}
    assert record.stopping is (error is FATAL)
    assert record.progress["rewards"].failed == 0, "the turn itself is there"
