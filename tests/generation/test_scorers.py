from collections.abc import Callable
from math import isclose

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rewards import weights_named
from nat_dpo_pipeline.errors import ModelError, ParseError
from nat_dpo_pipeline.generation.chat import Call, Route
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.scorers import (
    PoolingScorer,
    PrincipleScorer,
    RewardModelScorer,
    Score,
    Scorer,
    fold_system,
)
from nat_dpo_pipeline.generation.settings import Sampling
from nat_dpo_pipeline.generation.watching import FIRST_SCORES
from nat_dpo_pipeline.testing import ScriptedModel

USER, ASSISTANT, SYSTEM = Message("user", "q"), Message("assistant", "a"), Message("system", "Be brief.")
DIALOGUE = [SYSTEM, USER, ASSISTANT, Message("user", "r")]
FOLDED = (Message("user", "Be brief.\n\nq"), ASSISTANT, Message("user", "r"), Message("assistant", "b"))
ATTRIBUTES = "helpfulness:4,correctness:3,coherence:4,complexity:1,verbosity:2"


def _rewarding(content: str) -> ScriptedModel:
    return ScriptedModel(lambda _: {"model": "reward-1", "choices": [{"message": {"content": content}}]})


def _served(**entry: object) -> ScriptedModel:
    return ScriptedModel(lambda _: {"model": "reward-1", "data": [{"index": 0, **entry}]})


def _answering_yes(yes: float, no: float) -> ScriptedModel:
    tops = [{"token": "Yes", "logprob": yes}, {"token": "No", "logprob": no}]
    token = {"token": "Yes", "logprob": yes, "top_logprobs": tops}
    choice = {"message": {"content": "Yes"}, "logprobs": {"content": [token]}, "finish_reason": "length"}
    return ScriptedModel(lambda _: {"model": "reward-1", "choices": [choice]})


async def _score(scorer: Scorer, prompt: list[Message] | None = None, paid: list[ChatReply] | None = None) -> Score:
    return await scorer.score(prompt or [USER], "b", (paid if paid is not None else []).append)


async def test_attributes_are_weighed_and_kept() -> None:
    score = await _score(RewardModelScorer(_rewarding(ATTRIBUTES), weights_named("nemotron-4-340b")))
    assert isclose(score.value, 0.3 * 4 + 0.74 * 3 + 0.46 * 4 + 0.47 * 1 - 0.33 * 2)
    assert score.attributes == {"helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}
    assert score.model == "reward-1"
    assert score.members == {}


async def test_a_scalar_reward_has_no_attributes() -> None:
    assert await _score(RewardModelScorer(_rewarding("reward:-25.6"), {"helpfulness": 1.0})) == Score(
        -25.6, {}, "reward-1"
    )


async def test_the_request_is_the_conversation_ending_with_the_response() -> None:
    model = _rewarding("1")
    await _score(RewardModelScorer(model, {}), DIALOGUE)
    assert model.calls == [Call(FOLDED)]


async def test_a_suffix_is_added_to_the_last_user_turn() -> None:
    model = _rewarding("1")
    await _score(RewardModelScorer(model, {}, "/nothink"), DIALOGUE)
    assert model.calls == [Call((*FOLDED[:2], Message("user", "r /nothink"), FOLDED[3]))]


async def test_a_suffix_without_a_user_turn_is_left_out() -> None:
    model = _rewarding("1")
    await _score(RewardModelScorer(model, {}, "/nothink"), [ASSISTANT])
    assert model.calls == [Call((ASSISTANT, Message("assistant", "b")))]


async def test_a_principle_is_asked_about_in_a_turn_after_the_response() -> None:
    model = _answering_yes(-0.125, -5.0)
    assert await _score(PrincipleScorer(model, "correctness."), DIALOGUE) == Score(4.875, {}, "reward-1")
    (call,) = model.calls
    assert call.messages[:-1] == FOLDED
    assert call.messages[-1] == Message(
        "user",
        "Evaluate the response to the previous prompt in terms of whether it satisfies this principle: correctness. "
        "Only answer Yes or No.",
    )
    assert call.sampling.max_tokens == 1
    assert call.sampling.extra_body == {"logprobs": True, "top_logprobs": 20}


@pytest.mark.parametrize(
    ("route", "entry"), [(Route.POOLING, {"data": [[0.5], [-7.25]]}), (Route.CLASSIFY, {"probs": [-7.25]})]
)
async def test_a_scalar_server_is_asked_under_its_route(route: Route, entry: dict[str, object]) -> None:
    model = _served(**entry)
    assert await _score(PoolingScorer(model, route), DIALOGUE) == Score(-7.25, {}, "reward-1")
    assert model.calls == [Call(FOLDED, route=route)]


@pytest.mark.parametrize(
    "scorer",
    [
        RewardModelScorer(_rewarding("It is good."), {"helpfulness": 1.0}),
        RewardModelScorer(_rewarding("correctness:3"), {"helpfulness": 1.0}),
        PrincipleScorer(_rewarding("Yes"), "correctness"),
        PoolingScorer(_served(data=[])),
    ],
)
async def test_a_reply_without_the_score_is_a_parse_error_and_still_paid_for(scorer: Scorer) -> None:
    paid: list[ChatReply] = []
    with pytest.raises(ParseError):
        await _score(scorer, paid=paid)
    assert [reply.model for reply in paid] == ["reward-1"]


@pytest.mark.parametrize(
    "scorer",
    [
        PoolingScorer(_served(data=[0.6, 0.8])),
        PoolingScorer(_served(data=[[0.6, 0.8]])),
        PoolingScorer(_served(probs=[0.2, 0.8]), Route.CLASSIFY),
    ],
)
async def test_a_model_that_gives_several_numbers_ends_at_once(scorer: Scorer) -> None:
    with pytest.raises(ModelError, match=r"'scripted' \(reward-1\) is no reward model: .* 2 numbers") as caught:
        await _score(scorer)
    assert caught.value.fatal


async def test_a_model_that_gives_one_score_to_all_responses_ends_after_a_few() -> None:
    model = _served(probs=[1.0])
    scorer = PoolingScorer(model, Route.CLASSIFY)
    responses = [f"answer {number}" for number in range(FIRST_SCORES)]
    for response in (*responses[:-1], responses[0]):
        assert (await scorer.score([USER], response, lambda _: None)).value == 1.0
    with pytest.raises(ModelError, match="/classify gives 1 to each of 8 different responses") as caught:
        await scorer.score([USER], responses[-1], lambda _: None)
    assert caught.value.fatal
    asked = len(model.calls)
    with pytest.raises(ModelError, match="/classify gives 1 to each of 8 different responses"):
        await scorer.score([USER], "one more", lambda _: None)
    assert len(model.calls) == asked


@pytest.mark.parametrize(("at_bounds", "warnings"), [(4, 1), (3, 0)])
async def test_probabilities_that_are_0_or_1_are_reported_once(
    caplog: pytest.LogCaptureFixture, at_bounds: int, warnings: int
) -> None:
    values = [1.0] * (at_bounds - 1) + [0.0] + [0.5] * 20
    model = ScriptedModel(lambda call: {"data": [{"data": [values[int(call.messages[-1].content)]]}]})
    scorer = PoolingScorer(model)
    for number in range(2 * FIRST_SCORES):
        await scorer.score([USER], str(number), lambda _: None)
    assert caplog.text.count("4 of the first 8 scores are exactly 0 or 1") == warnings


async def test_more_is_said_to_a_scalar_server_where_it_is_configured() -> None:
    model = _served(data=[1.0])
    await _score(PoolingScorer(model, extra_body={"truncate_prompt_tokens": 512}))
    assert model.calls[0].sampling == Sampling(extra_body={"truncate_prompt_tokens": 512})


@pytest.mark.parametrize("response", ["42", " 42 ", "reward:4", "helpfulness:4", "It is"])
async def test_a_chat_model_that_goes_on_with_the_response_gives_no_reward(response: str) -> None:
    for more in ("", ".5", " and more"):
        model = _rewarding(f"{response.strip()}{more}")
        with pytest.raises(ParseError, match="begins with the response: the model is no reward model"):
            await RewardModelScorer(model, {"helpfulness": 1.0}).score([USER], response, lambda _: None)


async def test_a_parse_error_holds_the_reply() -> None:
    with pytest.raises(ParseError) as error:
        await _score(RewardModelScorer(_rewarding("correctness:3"), {"helpfulness": 1.0}))
    assert error.value.reply == "correctness:3"


@pytest.mark.parametrize(
    "make",
    [
        lambda model: RewardModelScorer(model, {}),
        lambda model: PrincipleScorer(model, "correctness"),
        PoolingScorer,
    ],
)
async def test_a_conversation_that_is_too_long_is_asked_about_once(make: Callable[[ScriptedModel], Scorer]) -> None:
    model = ScriptedModel(lambda _: ModelError("answered 400: the maximum context length is 4096 tokens"))
    seen: list[ChatReply | ModelError] = []
    with pytest.raises(ModelError, match="4096") as error:
        await _score(make(model), paid=seen)
    assert len(model.calls) == 1
    assert seen == [error.value]


@pytest.mark.parametrize(
    ("prompt", "folded"),
    [
        ([], []),
        ([USER], [USER]),
        ([USER, ASSISTANT, USER], [USER, ASSISTANT, USER]),
        ([SYSTEM, USER], [Message("user", "Be brief.\n\nq")]),
        ([SYSTEM, SYSTEM, USER, ASSISTANT], [Message("user", "Be brief.\n\nBe brief.\n\nq"), ASSISTANT]),
        ([USER, ASSISTANT, SYSTEM, USER], [Message("user", "Be brief.\n\nq"), ASSISTANT, USER]),
    ],
)
def test_system_messages_are_put_before_the_first_user_turn(prompt: list[Message], folded: list[Message]) -> None:
    assert fold_system(prompt) == folded


def test_a_system_text_before_the_assistant_becomes_a_user_turn_of_its_own() -> None:
    assert fold_system([SYSTEM, ASSISTANT, USER]) == [Message("user", SYSTEM.content), ASSISTANT, USER]


def test_a_system_text_alone_becomes_the_user_turn() -> None:
    assert fold_system([SYSTEM]) == [Message("user", SYSTEM.content)]
