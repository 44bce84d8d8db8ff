"""Prompts read from the steps of models' calls, in the shapes in which frameworks report them."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from nat.plugin_api import Context

from nat_dpo_pipeline.core.messages import Message, ToolCall, tools_of
from nat_dpo_pipeline.plugin.middleware.seen_prompts import SeenPrompts, common_prompt, unwatched
from nat_dpo_pipeline.plugin.nat_api import (
    IntermediateStepPayload,
    IntermediateStepType,
    StreamEventData,
    TraceMetadata,
)

WHY = (Message("system", "Be brief."), Message("user", "Why?"))
CALL: Any = {"name": "search", "args": {}, "id": "1"}
CALLED = (
    Message("user", "Why?"),
    Message("assistant", "", (ToolCall("search", "{}", "1"),)),
    Message("tool", "x", tool_call_id="1", name="search"),
)


@contextmanager
def _call(chat: object, text: object = None, output: object = "So.", model: str | None = None) -> Iterator[None]:
    manager = Context.get().intermediate_step_manager
    data = StreamEventData(input=text)
    metadata: Any = chat if isinstance(chat, dict) else TraceMetadata(chat_inputs=chat)
    start = IntermediateStepPayload(event_type=IntermediateStepType.LLM_START, name=model, data=data, metadata=metadata)
    manager.push_intermediate_step(start)
    yield
    end = {"event_type": IntermediateStepType.LLM_END, "data": StreamEventData(input=text, output=output)}
    manager.push_intermediate_step(start.model_copy(update=end))


def _seen(*calls: tuple[object, object, object]) -> SeenPrompts:
    seen = SeenPrompts()
    with seen.watching():
        for chat, text, output in calls:
            with _call(chat, text, output):
                pass
    return seen


@pytest.mark.parametrize(
    ("chat", "text", "prompt"),
    [
        ([SystemMessage("Be brief."), HumanMessage("Why?")], "Why?", WHY),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}], None, WHY),
        ({"chat_inputs": [{"role": "user", "content": "Why?"}]}, None, (Message("user", "Why?"),)),
        (["Why?"], "Why?", "Why?"),
        (None, "Why?", "Why?"),
        (None, [SystemMessage("Be brief."), HumanMessage("Why?")], WHY),
        ([HumanMessage("Why?"), AIMessage("", tool_calls=[CALL]), ToolMessage("x", tool_call_id="1")], None, CALLED),
        ([SimpleNamespace(role="user", content=object())], None, None),
        (None, None, None),
    ],
)
async def test_what_a_model_was_asked(chat: object, text: object, prompt: object) -> None:
    seen = _seen((chat, text, "So."))
    assert seen.first() == prompt
    assert seen.behind(" So.\n") == prompt


async def test_the_prompt_behind_a_response_is_that_of_the_last_call_that_gave_it() -> None:
    seen = _seen((None, "one", "So."), (None, "two", "So."), (None, "three", "Safe."), (None, "four", None))
    assert (seen.first(), seen.behind("So."), seen.behind("Other")) == ("one", "two", None)


async def test_the_model_behind_a_response_is_who_wrote_it_or_who_was_asked_last() -> None:
    seen = SeenPrompts()
    assert seen.model_behind("So.") is None
    with seen.watching():
        for output, model in (("So.", "large"), ("Safe.", "guard")):
            with _call(None, "Why?", output, model):
                pass
    assert [seen.model_behind(text) for text in ("So.", "Safe.", "So. Indeed.")] == ["large", "guard", "guard"]


async def test_what_is_asked_before_and_after_and_elsewhere_is_not_seen() -> None:
    outer, inner = SeenPrompts(), SeenPrompts()
    with _call(None, "before"), outer.watching():
        with _call(None, "outer"), inner.watching(), _call(None, "inner"):
            pass
        with unwatched(), _call(None, "scorer"):
            pass
        with _call(None, "last", "Last."):
            pass
    with _call(None, "after", "After."):
        pass
    assert (outer.first(), outer.behind("Last."), outer.behind("After.")) == ("outer", "last", None)
    assert (inner.first(), inner.behind("Last.")) == ("inner", None)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=1, max_size=4))
def test_a_common_prompt_is_one_that_every_call_began_with_or_was_written_to(prompts: list[list[str]]) -> None:
    calls = [
        (_seen(*((None, prompt, f"{prompt}!") for prompt in asked)), f"{(asked or ' ')[-1]}!") for asked in prompts
    ]
    common = common_prompt(calls)
    lasts, firsts = ({(asked or [None])[place] for asked in prompts} for place in (-1, 0))
    expected = next(iter(lasts)) if len(lasts) == 1 else next(iter(firsts)) if len(firsts) == 1 else None
    assert common == expected


def test_space_around_a_reply_does_not_matter() -> None:
    seen = _seen(("Why?", None, " So.\n"), ("What else?", None, "Nothing."))
    assert seen.behind("So. ") == "Why?"


def test_what_an_agent_did_after_its_first_prompt_is_a_rollout() -> None:
    first = [SystemMessage("Be brief."), HumanMessage("Why?")]
    seen = _seen(
        (first, None, ""), ([*first, AIMessage("", tool_calls=[CALL]), ToolMessage("x", tool_call_id="1")], None, "So.")
    )
    assert seen.first() == WHY
    rollout = seen.rollout(WHY, "So.")
    assert rollout is not None
    assert [(one.role, one.content, bool(one.tool_calls)) for one in rollout] == [
        ("assistant", "", True),
        ("tool", "x", False),
        ("assistant", "So.", False),
    ]
    assert seen.rollout(WHY, "Something else.") is None
    assert seen.rollout("What?", "So.") is None
    assert _seen((first, None, "So.")).rollout(WHY, "So.") is None


def test_tools_on_offer_are_part_of_the_prompt() -> None:
    tool = {
        "type": "function",
        "function": {"name": "search", "description": "", "parameters": {"type": "object", "properties": {}}},
    }
    seen = _seen(({"chat_inputs": [{"role": "user", "content": "Why?"}], "tools_schema": [tool]}, None, "So."))
    prompt = seen.first()
    assert prompt is not None
    assert [one["function"] for one in tools_of(prompt)] == [tool["function"]]
