"""Calls are checked against the tools on offer and their JSON schemas."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import Message, Prompt, ToolCall, messages_of, reply_of
from nat_dpo_pipeline.core.rendering import with_tools
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.call_checks import ToolCallScorer

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}
ASKED: Prompt = with_tools("Cold?", [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}])


async def _score(*calls: tuple[str, str], asked: Prompt = ASKED) -> tuple[float, dict[str, float]]:
    made = tuple(ToolCall(name, arguments, "call00001") for name, arguments in calls)
    messages = asked if isinstance(asked, tuple) else messages_of(asked)
    score = await ToolCallScorer().score(messages, reply_of(Message("assistant", "", made)), lambda _: None)
    return score.value, dict(score.attributes)


@pytest.mark.parametrize(
    ("calls", "value", "unknown", "wrong"),
    [
        ([("weather", '{"city": "Oslo"}')], 1.0, 0, 0),
        ([("weather", '{"city": "Oslo", "days": 2}')], 1.0, 0, 0),
        ([("weather", "{}")], 0.0, 0, 1),
        ([("weather", '{"city": 7}')], 0.0, 0, 1),
        ([("weather", '{"city": "Oslo", "days": 0}')], 0.0, 0, 1),
        ([("weather", '{"city": "Oslo", "place": 1}')], 0.0, 0, 1),
        ([("weather", '{"city": ')], 0.0, 0, 1),
        ([("climate", '{"city": "Oslo"}')], 0.0, 1, 0),
        ([("weather", '{"city": "Oslo"}'), ("climate", "{}")], 0.5, 1, 0),
        ([], 1.0, 0, 0),
    ],
)
async def test_the_score_is_the_share_of_calls_that_can_be_carried_out(
    calls: list[tuple[str, str]], value: float, unknown: int, wrong: int
) -> None:
    assert await _score(*calls) == (value, {"unknown_tools": unknown, "wrong_arguments": wrong})


async def test_without_tools_on_offer_every_call_is_unknown() -> None:
    assert await _score(("weather", "{}"), asked="Cold?") == (0.0, {"unknown_tools": 1, "wrong_arguments": 0})


values = st.none() | st.booleans() | st.integers() | st.text(max_size=3)


@given(st.dictionaries(st.sampled_from(["city", "days", "place"]), values))
async def test_what_fits_the_schema_is_right_and_nothing_else(arguments: dict[str, object]) -> None:
    import jsonschema

    fits = jsonschema.Draft202012Validator(SCHEMA).is_valid(arguments)
    assert (await _score(("weather", json.dumps(arguments))))[0] == float(fits)


def test_without_jsonschema_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ConfigurationError, match=r"nat-dpo-pipeline\[tools\]"):
        ToolCallScorer()
