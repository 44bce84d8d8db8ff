from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.api_server import (
    ChatRequest,
    ChatRequestOrMessage,
    ChatResponse,
    Message,
    Usage,
    UserMessageContentRoleType,
)
from pydantic import BaseModel

from nat_dpo_pipeline.core.messages import Message as OurMessage
from nat_dpo_pipeline.plugin.middleware.texts import prompt_of, text_of


class _Reply(BaseModel):
    answer: str
    score: float


class _Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("so", "so"),
        (True, "True"),
        (0.5, "0.5"),
        ({"role": "assistant", "content": "so"}, "so"),
        ([{"type": "text", "text": "so"}], "so"),
        (["one", "two"], '["one","two"]'),
        ({"b": 1, "a": [None]}, '{"b":1,"a":[null]}'),
        (_Reply(answer="so", score=1), '{"answer":"so","score":1.0}'),
        (
            {"content": "", "tool_calls": [{"name": "f"}]},
            '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        ),
        (_Opaque(), '"<opaque>"'),
        ({"lone": "\ud800"}, '{"lone": "\\ud800"}'),
        ({"a", "b"} - {"b"}, '["a"]'),
    ],
)
def test_the_text_of_a_result(result: Any, text: str) -> None:
    assert text_of(result) == text


def test_the_text_of_nat_s_chat_response_is_what_it_says() -> None:
    assert text_of(ChatResponse.from_string("so", usage=Usage())) == "so"


def test_what_can_be_read_once_is_left_for_whoever_is_to_read_it() -> None:
    once = iter(["so"])
    assert "iterator" in text_of(once)
    assert "iterator" in str(prompt_of(once))
    assert list(once) == ["so"]


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        ("Why?", "Why?"),
        ("", ""),
        ([{"role": "user", "content": "Why?"}], (OurMessage("user", "Why?"),)),
        ({"messages": [{"role": "user", "content": "Why?"}]}, (OurMessage("user", "Why?"),)),
        ({"question": "Why?"}, '{"question":"Why?"}'),
        (_Reply(answer="so", score=1), '{"answer":"so","score":1.0}'),
    ],
)
def test_the_prompt_in_an_input(value: Any, prompt: object) -> None:
    assert prompt_of(value) == prompt


def test_the_prompt_in_nat_s_chat_request_is_its_messages() -> None:
    asked = ChatRequest(messages=[Message(content="Why?", role=UserMessageContentRoleType.USER)])
    assert prompt_of(asked) == (OurMessage("user", "Why?"),)
    either = ChatRequestOrMessage.model_validate(asked.model_dump())
    assert prompt_of(either) == (OurMessage("user", "Why?"),)
    assert prompt_of(ChatRequestOrMessage(input_message="Why?")) == "Why?"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=8,
)


@given(_VALUES)
def test_anything_has_a_text_and_a_prompt(value: object) -> None:
    assert isinstance(text_of(value), str)
    assert isinstance(prompt_of(value), str | tuple)
