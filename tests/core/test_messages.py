"""Messages, replies and prompts keep calls, thoughts and tools, and compare by what they say."""

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import (
    TOOLS,
    Message,
    Reply,
    Rollout,
    ToolCall,
    alike,
    as_messages,
    calls_tools,
    exact_key,
    has_calls,
    is_blank,
    last_text,
    messages_of,
    prompt_json,
    prompt_key,
    prompt_name,
    reply_json,
    reply_of,
    tools_of,
    tools_text,
)
from nat_dpo_pipeline.core.rendering import render_prompt, render_response, with_tools

values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), st.lists, max_leaves=3)
arguments = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), values, max_size=3)
names = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=4)
calls = st.builds(lambda name, given: ToolCall(name, json.dumps(given), "call00001"), names, arguments)
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def _call(text: str, call_id: str = "a") -> ToolCall:
    return ToolCall("weather", text, call_id)


def test_calls_are_equal_by_the_values_of_their_arguments() -> None:
    assert _call('{"city": "Oslo", "days": 2}') == _call('{"days":2,"city":"Oslo"}', "b")
    assert _call('{"city": "Oslo"}') != _call('{"city": "Bergen"}')
    assert _call('{"city": "Oslo"}') != ToolCall("climate", '{"city": "Oslo"}', "a")


@pytest.mark.parametrize("text", ["{", "[1]", '"Oslo"', '{"days": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_stay_text(text: str) -> None:
    call = _call(text)
    assert call.values() is None
    assert call.as_json()["function"] == {"name": "weather", "arguments": text}
    assert text in call.text


@given(calls, st.text(st.characters(codec="utf-8")), st.none() | st.just("Hm."))
def test_a_reply_with_calls_comes_back_from_json_and_from_other_processes(
    call: ToolCall, content: str, reasoning: str | None
) -> None:
    reply = reply_of(Message("assistant", content, (call,), reasoning=reasoning))
    assert isinstance(reply, Reply)
    again = render_response(json.loads(json.dumps(reply_json(reply))))
    for other in (again, pickle.loads(pickle.dumps(reply))):
        assert isinstance(other, Reply)
        assert other == reply
        assert other.message.tool_calls == (call,)
        assert other.message.reasoning == reasoning


def test_a_reply_of_text_is_a_text() -> None:
    assert type(reply_of(Message("assistant", "Yes."))) is str
    assert reply_json("Yes.") == "Yes."
    assert not calls_tools("Yes.")


def test_a_rollout_is_its_last_reply_and_keeps_everything() -> None:
    messages = (Message("assistant", "", (_call("{}"),)), Message("tool", "3", tool_call_id="a"))
    rollout = Rollout((*messages, Message("assistant", "3 degrees")))
    assert rollout == "3 degrees"
    assert pickle.loads(pickle.dumps(rollout)).messages == rollout.messages
    assert render_response(reply_json(rollout)) == rollout
    assert Rollout(messages[1:]) == ""


def test_a_prompt_keeps_the_tools_on_offer_apart_from_its_messages() -> None:
    prompt = with_tools("Cold in Oslo?", [WEATHER])
    assert tools_of(prompt) == [WEATHER]
    assert as_messages(prompt) == [{"role": "user", "content": "Cold in Oslo?"}]
    assert [message.role for message in prompt if isinstance(message, Message)] == [TOOLS, "user"]
    assert has_calls(prompt)
    assert render_prompt(prompt_json(prompt)) == prompt
    assert prompt_key(prompt) != prompt_key("Cold in Oslo?")
    assert last_text(prompt) == "Cold in Oslo?"


def test_a_prompt_without_tools_has_none() -> None:
    for prompt in ("Why?", (Message("user", "Why?"),), ()):
        assert tools_text(prompt) is None
        assert tools_of(prompt) == []
        assert not has_calls(prompt)
    assert messages_of("Why?") == (Message("user", "Why?"),)
    assert prompt_json("Why?") == [{"role": "user", "content": "Why?"}]
    assert last_text("Why?") == "Why?"
    assert last_text(()) == ""
    assert is_blank(())


def test_ids_and_thoughts_do_not_tell_prompts_apart() -> None:
    def prompt(call_id: str, reasoning: str | None) -> Any:
        called = Message("assistant", "", (_call("{}", call_id),), reasoning=reasoning)
        return (Message("user", "Cold?"), called, Message("tool", "3", tool_call_id=call_id, name="weather"))

    one, other = prompt("a", None), prompt("b", "Hm.")
    assert one == other
    assert exact_key(one) == exact_key(other)
    assert prompt_name(one) == prompt_name(other)
    assert prompt_name(one) != prompt_name("Cold?")


def test_both_answers_of_a_pair_have_thoughts_or_neither() -> None:
    thought = reply_of(Message("assistant", "Yes.", reasoning="Hm."))
    called = reply_of(Message("assistant", "", (_call("{}"),), reasoning="Hm."))
    assert alike("Yes.", "No.") == ("Yes.", "No.")
    assert [type(one) for one in alike(thought, "No.")] == [str, str]
    assert alike(thought, called)[0] is thought
    kept = alike(called, "No.")[0]
    assert isinstance(kept, Reply)
    assert kept.message.reasoning is None


def test_a_message_in_json_has_no_keys_that_say_nothing() -> None:
    assert Message("user", "Why?").as_json() == {"role": "user", "content": "Why?"}
    result = Message("tool", "3", tool_call_id="a", name="weather")
    assert result.as_json() == {"role": "tool", "content": "3", "tool_call_id": "a", "name": "weather"}
