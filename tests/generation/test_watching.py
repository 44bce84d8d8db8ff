import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rewards import GenRMFormat
from nat_dpo_pipeline.errors import DPOPipelineError, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import Call, ChatModel
from nat_dpo_pipeline.generation.ensembles import EnsembleScorer
from nat_dpo_pipeline.generation.judges import GenerativeRewardModel, PairwiseJudge, RatingJudge
from nat_dpo_pipeline.generation.replies import ChatReply, read_reply
from nat_dpo_pipeline.generation.scorers import PoolingScorer, PrincipleScorer, RewardModelScorer, Scorer, TurnScorer
from nat_dpo_pipeline.generation.watching import FIRST_SCORES, FirstScores, ScorerWatch
from nat_dpo_pipeline.testing import ScriptedModel

USER = Message("user", "q")
RESPONSES = [f"answer {number}" for number in range(5 * FIRST_SCORES)]
SCORERS: dict[str, tuple[Callable[[ChatModel], Scorer], int]] = {
    "reward_model": (lambda model: RewardModelScorer(model, {}), 1),
    "principle": (lambda model: PrincipleScorer(model, "truth"), 1),
    "pooling": (PoolingScorer, 1),
    "rating_judge": (RatingJudge, 2),
    "ensemble": (lambda model: EnsembleScorer({"a": RewardModelScorer(model, {})}), 1),
}
TURN_SCORERS: dict[str, Callable[[ChatModel], TurnScorer]] = {
    "pairwise_judge": PairwiseJudge,
    "genrm": lambda model: GenerativeRewardModel(model, GenRMFormat.QWEN3_NEMOTRON_235B),
}


async def _outcomes(scorer: Scorer, responses: Sequence[str] = RESPONSES) -> list[object]:
    asked = (scorer.score([USER], response, lambda _: None) for response in responses)
    return list(await asyncio.gather(*asked, return_exceptions=True))


def _reading_off(call: Call) -> str:
    """A reward of as much as the number of the response."""
    return call.messages[-1].content.removeprefix("answer ") + ".5"


@pytest.mark.parametrize("kind", SCORERS)
async def test_a_model_that_only_chats_is_asked_a_few_times_however_many_responses_there_are(kind: str) -> None:
    make, calls = SCORERS[kind]
    model = ScriptedModel(lambda _: {"choices": [{"message": {"content": "It is good."}}], "data": [{}]})
    outcomes = await _outcomes(make(model))
    assert len(model.calls) == calls * FIRST_SCORES
    unread = [one for one in outcomes if isinstance(one, ParseError)]
    ended = [one for one in outcomes if isinstance(one, ModelError) and one.fatal]
    assert (len(unread), len(unread) + len(ended)) == (FIRST_SCORES - 1, len(RESPONSES))
    assert {str(one) for one in ended} == {
        f"the scorer could not read any of the first {FIRST_SCORES} replies: {unread[0]}"
    }


@pytest.mark.parametrize("kind", TURN_SCORERS)
async def test_a_judge_of_turns_is_asked_a_few_times_too(kind: str) -> None:
    model = ScriptedModel(lambda _: "Both are good.")
    scorer = TURN_SCORERS[kind](model)
    turns = (scorer.score_turn([USER], RESPONSES[place : place + 4], lambda _: None) for place in range(4))
    outcomes = await asyncio.gather(*turns, return_exceptions=True)
    assert all(isinstance(one, ModelError) and one.fatal for one in outcomes)
    assert len(model.calls) == 2 * FIRST_SCORES


async def test_the_most_frequent_reason_is_said() -> None:
    model = ScriptedModel(lambda call: "answer" if call.messages[-1].content == "answer 0" else "correctness:3")
    outcomes = await _outcomes(RewardModelScorer(model, {"helpfulness": 1.0}))
    assert "replies: the reward has no helpfulness; it has correctness" in str(outcomes[-1])


async def test_one_score_lets_a_scorer_go_on_however_many_replies_have_none() -> None:
    model = ScriptedModel(lambda call: "1.5" if call.messages[-1].content == "answer 7" else "Good.")
    outcomes = await _outcomes(RewardModelScorer(model, {}))
    assert sum(isinstance(one, ParseError) for one in outcomes) == len(RESPONSES) - 1
    assert len(model.calls) == len(RESPONSES)


async def test_calls_that_fail_are_no_replies() -> None:
    model = ScriptedModel(lambda _: ModelError("too long"))
    outcomes = await _outcomes(RewardModelScorer(model, {}))
    assert {str(one) for one in outcomes} == {"too long"}
    assert len(model.calls) == len(RESPONSES)


async def test_all_are_asked_at_once_after_the_first_score() -> None:
    model = _Held()
    scorer = RewardModelScorer(model, {})
    first = asyncio.create_task(_outcomes(scorer))
    await model.until(FIRST_SCORES)
    model.answers["answer 0"].set_result("0.5")
    await model.until(len(RESPONSES))
    for answer in model.answers.values():
        if not answer.done():
            answer.set_result("1.5")
    assert not any(isinstance(one, Exception) for one in await first)


async def test_a_call_that_is_cancelled_makes_room_for_another() -> None:
    model = _Held()
    scorer = RewardModelScorer(model, {})
    tasks = [asyncio.create_task(scorer.score([USER], response, lambda _: None)) for response in RESPONSES]
    await model.until(FIRST_SCORES)
    for task in tasks[:3]:
        task.cancel()
    await model.until(FIRST_SCORES + 3)
    for task in tasks:
        task.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True))


class _Held:
    """A model whose replies are given by the test."""

    name = "held"

    def __init__(self) -> None:
        self.answers: dict[str, asyncio.Future[str]] = {}
        self._asked = asyncio.Condition()

    async def complete(self, call: Call) -> ChatReply:
        response = call.messages[-1].content
        answer = self.answers[response] = asyncio.get_running_loop().create_future()
        async with self._asked:
            self._asked.notify_all()
        return read_reply({"choices": [{"message": {"content": await answer}}]}, self.name)

    async def until(self, count: int) -> None:
        async with self._asked:
            await self._asked.wait_for(lambda: len(self.answers) >= count)
        assert len(self.answers) == count


@pytest.mark.parametrize(("second", "warnings"), [(7.0, 1), (6.0, 0)])
def test_a_scorer_that_gives_all_responses_one_score_is_reported_once(
    caplog: pytest.LogCaptureFixture, second: float, warnings: int
) -> None:
    watch = ScorerWatch()
    for response in RESPONSES:
        watch.scored(response, second if response == RESPONSES[1] else 7.0, "r-1")
    assert caplog.text.count("r-1 gives 7 to each of the first 8 responses") == warnings
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings


@pytest.mark.parametrize("reply", ['{"rating": 7}', "7.5"])
async def test_judges_and_reward_models_report_it_alike(reply: str, caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel(lambda _: reply)
    await _outcomes(RatingJudge(model) if "{" in reply else RewardModelScorer(model, {}))
    assert [record.getMessage().partition(" to each")[0] for record in caplog.records] == [
        f"scripted gives {7 if '{' in reply else 7.5}"
    ]


async def test_a_judge_that_always_names_the_first_place_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    judge = PairwiseJudge(ScriptedModel(lambda _: '{"winner": "A"}'))
    results: list[Any] = []
    for place in range(0, len(RESPONSES), 2):
        results += await judge.score_turn([USER], RESPONSES[place : place + 2], lambda _: None)
    assert not any(isinstance(one, DPOPipelineError) for one in results)
    assert caplog.text.count("scripted gives 0.5 to each of the first 8 responses") == 1


async def test_scores_that_differ_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = await _outcomes(RewardModelScorer(ScriptedModel(_reading_off), {}))
    assert not any(isinstance(one, Exception) for one in outcomes)
    assert not caplog.records


@given(st.lists(st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from([0.0, 0.5, 1.0])), max_size=40))
def test_the_first_scores_are_those_of_different_responses(scores: list[tuple[str, float]]) -> None:
    first = FirstScores()
    complete = [first.add(response, value) for response, value in scores]
    earliest = dict(reversed(scores))
    order = list(dict.fromkeys(response for response, _ in scores))[:FIRST_SCORES]
    assert first.by_response == {response: earliest[response] for response in order}
    assert sum(complete) == (len(order) == FIRST_SCORES)
    assert first.at_bounds == sum(value != 0.5 for value in first.by_response.values())
