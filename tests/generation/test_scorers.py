from math import isclose

import pytest

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.core.rewards import weights_named
from nat_dpo_pipeline.errors import ModelError, ParseError
from nat_dpo_pipeline.generation.chat import ChatReply
from nat_dpo_pipeline.generation.scorers import RewardModelScorer, fold_system
from nat_dpo_pipeline.testing import ScriptedModel

USER, ASSISTANT, SYSTEM = Message("user", "q"), Message("assistant", "a"), Message("system", "Be brief.")
ATTRIBUTES = "helpfulness:4,correctness:3,coherence:4,complexity:1,verbosity:2"


def _rewarding(content: str) -> ScriptedModel:
    body: dict[str, object] = {"model": "reward-1", "choices": [{"message": {"content": content}}]}
    return ScriptedModel(lambda messages, seed: body)  # noqa: ARG005


async def test_attributes_are_weighed_and_kept() -> None:
    scorer = RewardModelScorer(_rewarding(ATTRIBUTES), weights_named("nemotron-4-340b"))
    score = await scorer.score([USER], "a", lambda reply: None)  # noqa: ARG005
    assert isclose(score.value, 0.3 * 4 + 0.74 * 3 + 0.46 * 4 + 0.47 * 1 - 0.33 * 2)
    assert score.attributes == {"helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}
    assert score.model == "reward-1"


async def test_a_scalar_reward_has_no_attributes() -> None:
    score = await RewardModelScorer(_rewarding("reward:-25.6"), {"helpfulness": 1.0}).score([USER], "a", print)
    assert (score.value, dict(score.attributes)) == (-25.6, {})


async def test_the_request_is_the_conversation_ending_with_the_response() -> None:
    model = _rewarding("1")
    await RewardModelScorer(model, {}).score([SYSTEM, USER, ASSISTANT, Message("user", "r")], "b", lambda reply: None)  # noqa: ARG005
    assert model.calls == [
        [Message("user", "Be brief.\n\nq"), ASSISTANT, Message("user", "r"), Message("assistant", "b")]
    ]


@pytest.mark.parametrize("content", ["It is good.", "correctness:3"])
async def test_a_reply_without_the_score_is_a_parse_error_and_still_paid_for(content: str) -> None:
    paid: list[ChatReply] = []
    with pytest.raises(ParseError) as error:
        await RewardModelScorer(_rewarding(content), {"helpfulness": 1.0}).score([USER], "a", paid.append)
    assert [reply.text for reply in paid] == [content]
    assert content in error.value.reply


async def test_a_failed_call_stays_a_model_error() -> None:
    model = ScriptedModel(lambda messages, seed: ModelError("slow"))  # noqa: ARG005
    with pytest.raises(ModelError, match="slow"):
        await RewardModelScorer(model, {}).score([USER], "a", lambda reply: None)  # noqa: ARG005


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
