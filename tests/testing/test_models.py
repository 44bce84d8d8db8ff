import subprocess
import sys

import pytest

import nat_dpo_pipeline.testing
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.pairs import PairingRules, make_pairs
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel
from nat_dpo_pipeline.testing import ScriptedModel, make_turn

ASKED = Call((Message("system", "Be brief."), Message("user", "q")), sample=3)


def test_the_public_names_are_sorted_and_there() -> None:
    names = list(nat_dpo_pipeline.testing.__all__)
    assert names == sorted(set(names))
    assert [name for name in names if not hasattr(nat_dpo_pipeline.testing, name)] == []


@pytest.mark.parametrize("module", ["nat_dpo_pipeline.testing", "nat_dpo_pipeline.testing.server"])
def test_importing_the_helpers_imports_no_framework(module: str) -> None:
    script = (
        f"import sys, {module}\n"
        "print(*(name for name in ('aiohttp', 'nat', 'openai', 'pydantic', 'starlette') if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


async def test_a_scripted_text_is_a_finished_reply() -> None:
    model: ChatModel = ScriptedModel(lambda call: f"{call.messages[-1].content} {call.sample}")
    reply = await model.complete(ASKED)
    assert (reply.text, reply.finish_reason, reply.llm, reply.model) == ("q 3", "stop", model.name, model.name)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (2, 1)


async def test_a_scripted_body_is_read_like_that_of_a_server() -> None:
    body: dict[str, object] = {
        "model": "m-1",
        "choices": [{"finish_reason": "length", "message": {"content": "cut"}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5},
    }
    reply = await ScriptedModel(lambda call: body).complete(ASKED)  # noqa: ARG005
    assert (reply.text, reply.finish_reason, reply.model) == ("cut", "length", "m-1")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 5)
    assert reply.body == body


async def test_a_scripted_error_is_raised_and_the_call_kept() -> None:
    model = ScriptedModel(lambda call: ModelError("spent", fatal=True))  # noqa: ARG005
    with pytest.raises(ModelError, match="spent"):
        await model.complete(ASKED)
    assert model.calls == [ASKED]


async def test_every_call_is_kept_in_order() -> None:
    model = ScriptedModel(lambda call: "a")  # noqa: ARG005
    for text in ("one", "two"):
        await model.complete(Call((Message("user", text),)))
    assert [call.messages[0].content for call in model.calls] == ["one", "two"]


def test_a_made_turn_has_one_distinct_response_per_score() -> None:
    turn = make_turn([2.0, 1.0, 2.0], turn_id="t", example_id="e", prompt="Why?")
    assert (turn.example_id, turn.turn_id, turn.prompt) == ("e", "t", "Why?")
    assert [candidate.score for candidate in turn.candidates] == [2.0, 1.0, 2.0]
    assert [candidate.candidate_index for candidate in turn.candidates] == [0, 1, 2]
    assert len({candidate.response for candidate in turn.candidates}) == 3
    assert {(candidate.example_id, candidate.turn_id, candidate.prompt) for candidate in turn.candidates} == {
        ("e", "t", "Why?")
    }


def test_a_made_turn_can_be_paired() -> None:
    assert len(make_pairs([make_turn([1.0, 0.0])], PairingRules()).pairs) == 1
