import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.endings import Ending
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.replies import ChatReply, Usage, read_reply

THINKING = {"type": "thinking", "thinking": "Hm."}
TEXT = {"type": "text", "text": "a"}


def _read(message: object, finish_reason: object = "stop", **more: object) -> ChatReply:
    return read_reply({"choices": [{"message": message, "finish_reason": finish_reason}], **more}, "m")


@pytest.mark.parametrize("reason", [None, 3, ["stop"]])
def test_a_finish_reason_that_is_no_text_is_none(reason: object) -> None:
    reply = _read({"content": "a"}, reason)
    assert reply.finish_reason is None
    assert reply.ending is Ending.WHOLE


@pytest.mark.parametrize(
    "message", [None, {}, {"content": None}, {"content": []}, {"content": ""}, "text", [], ["text"]]
)
def test_a_message_without_text_is_empty(message: object) -> None:
    reply = _read(message)
    assert (reply.text, reply.thoughts, reply.not_text) == ("", "", ())


@pytest.mark.parametrize(
    ("content", "text", "thoughts"),
    [
        ([TEXT], "a", ""),
        ([TEXT, {"type": "output_text", "text": "b"}, "c"], "abc", ""),
        ([{"text": "a"}], "a", ""),
        (TEXT, "a", ""),
        ([THINKING, TEXT], "a", "Hm."),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, TEXT], "a", "Hm."),  # Mistral
        ([{"type": "redacted_thinking", "data": "x"}, TEXT], "a", ""),
        ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}, TEXT], "a", "Hm."),
        ([{"type": "text", "text": "Hm.", "thought": True}, TEXT], "a", "Hm."),
        ([{"type": "text", "text": "<think>Hm."}, {"type": "text", "text": "</think>a"}], "a", "Hm."),
        ("<think>\nHm.\n</think>\n\na", "a", "Hm."),
        (" a\n", " a\n", ""),
    ],
)
def test_an_answer_is_joined_from_its_parts_and_thoughts_are_kept_apart(
    content: object, text: str, thoughts: str
) -> None:
    reply = _read({"content": content})
    assert (reply.text, reply.thoughts, reply.not_text, reply.ending) == (text, thoughts, (), Ending.WHOLE)


@pytest.mark.parametrize(
    ("fields", "thoughts"),
    [
        ({"reasoning_content": "Hm."}, "Hm."),
        ({"reasoning": "Hm."}, "Hm."),
        ({"reasoning": "Hm.", "reasoning_content": "Hm."}, "Hm."),
        ({"reasoning_content": None, "reasoning": "Hm."}, "Hm."),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}, {"type": "x", "data": "y"}]}, "Hm."),
        ({"thinking_blocks": [{**THINKING, "signature": "x"}]}, "Hm."),
        ({"reasoning": {"content": ["Hm."]}}, "Hm."),
        ({"reasoning": 3, "reasoning_content": [None, [[[[["deep"]]]]]]}, ""),
    ],
)
def test_thoughts_beside_the_content_are_kept(fields: dict[str, object], thoughts: str) -> None:
    reply = _read({"content": "a", **fields})
    assert (reply.text, reply.thoughts) == ("a", thoughts)
    assert not reply.has_only_thoughts


@pytest.mark.parametrize(
    ("message", "details", "only"),
    [
        ({"content": None, "reasoning": "Hm."}, None, True),
        ({"content": "<think>Hm."}, None, True),
        ({"content": [THINKING]}, None, True),
        ({"content": ""}, {"reasoning_tokens": 9}, True),
        ({"content": ""}, {"reasoning_tokens": 0}, False),
        ({"content": "a"}, {"reasoning_tokens": 9}, False),
    ],
)
def test_a_reply_of_thoughts_alone_is_known(message: object, details: object, only: bool) -> None:
    assert _read(message, "length", usage={"completion_tokens_details": details}).has_only_thoughts is only


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        (42, ("int",)),
        ({"answer": "a"}, ("object",)),
        (True, ("bool",)),
        ([TEXT, {"type": "image_url", "image_url": {}}], ("image_url",)),
        ([{"type": "text", "text": 3}, None, [1]], ("text", "null", "list")),
        ([{"type": ["odd"]}], ("['odd']",)),
    ],
)
def test_content_that_is_no_text_is_named(content: object, kinds: tuple[str, ...]) -> None:
    assert _read({"content": content}).not_text == kinds


@pytest.mark.parametrize(
    ("message", "refused", "text"),
    [
        ({"content": None, "refusal": "I cannot."}, True, "I cannot."),
        ({"content": "a", "refusal": "I cannot."}, True, "a"),
        ({"content": [{"type": "refusal", "refusal": "I cannot."}]}, True, "I cannot."),
        ({"content": "", "refusal": True}, True, ""),
        ({"content": "a", "refusal": None}, False, "a"),
    ],
)
def test_a_refusal_that_the_server_marks_is_one(message: object, refused: bool, text: str) -> None:
    reply = _read(message)
    assert (reply.refused, reply.text) == (refused, text)


@pytest.mark.parametrize(
    ("message", "reason", "ending"),
    [
        ({"content": "a", "tool_calls": [{"id": "1"}]}, "stop", Ending.TOOL_CALLS),
        ({"content": None, "function_call": {"name": "f"}}, None, Ending.TOOL_CALLS),
        ({"content": [TEXT, {"type": "tool_use", "name": "f"}]}, "length", Ending.TOOL_CALLS),
        ({"content": "a", "tool_calls": []}, "stop", Ending.WHOLE),
        ({"content": "a", "tool_calls": [{"id": "1"}]}, "content_filter", Ending.FILTERED),
    ],
)
def test_calls_of_tools_are_known_whatever_the_reason(message: object, reason: object, ending: Ending) -> None:
    assert _read(message, reason).ending is ending


@pytest.mark.parametrize("choice", [{"finish_reason": "abort"}, {"finish_reason": None, "error": {"code": 502}}])
def test_a_reply_that_the_server_gave_up_is_a_failed_call(choice: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"model 'm' .* gave up a reply under way") as error:
        read_reply({"choices": [{"message": {"content": "a"}, **choice}]}, "m")
    assert error.value.transient
    assert not error.value.fatal


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4)),
        ({"prompt_tokens": 3.0, "completion_tokens": 4, "completion_tokens_details": None}, Usage(3, 4)),
        ({"prompt_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 2}}, Usage(3, 0, 2)),
        *(({"prompt_tokens": odd, "completion_tokens": odd}, Usage()) for odd in (None, "x", [1], True, -1, 2**64)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, Usage()),
        ({"prompt_tokens": 10**400, "completion_tokens_details": {"reasoning_tokens": 2**70}}, Usage()),
        *((odd, Usage()) for odd in (None, [], "12", {}, 3)),
    ],
)
def test_a_count_of_tokens_is_a_number_that_can_be_one(usage: object, read: Usage) -> None:
    assert _read({"content": "a"}, usage=usage).usage == read
    assert read.is_reported is (read != Usage())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["text", "thinking"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "type", "text", "thinking", "refusal", "reasoning", "tool_calls", "usage"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(message=JSON, reason=JSON, usage=JSON)
def test_any_body_is_read(message: Any, reason: Any, usage: Any) -> None:
    reply = _read(message, reason, usage=json.loads(json.dumps(usage)))
    assert isinstance(reply.text, str)
    assert isinstance(reply.thoughts, str)
    assert all(0 <= count < 2**63 for count in (reply.usage.prompt_tokens, reply.usage.completion_tokens))
