from contextlib import suppress
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rendering import render_prompt, render_response, without_reply
from nat_dpo_pipeline.errors import CandidateRefused

# No text that is drawn holds a bracket, so a bracket in what comes out is the repr of a container or an object.
TEXTS = st.text(alphabet="ab \n1é\ud800", max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=3)
KEYS = st.sampled_from(["role", "content", "type", "text", "messages", "tool_calls", "image_url"])
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS},
    optional={"tool_calls": st.just([]) | st.just([{"id": "1"}])},
)
PARTS = st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", "output_text"]), "text": TEXTS | SCALARS})
WITH_PARTS = st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(PARTS | TEXTS, max_size=3)})
RAW = st.recursive(
    SCALARS | MESSAGES | WITH_PARTS | PARTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS.filter(lambda key: key != "type"), inner, max_size=3)
        | st.dictionaries(KEYS.filter(lambda key: key != "type"), inner, max_size=3).map(
            lambda of: SimpleNamespace(**of)
        )
    ),
    max_leaves=8,
)


def _refusal(render: Any, raw: object) -> RefusalReason:
    with pytest.raises(CandidateRefused) as refused:
        render(raw)
    assert isinstance(refused.value.reason, RefusalReason)
    return refused.value.reason


def _holds_no_repr(text: str) -> bool:
    text.encode()
    return not set("[]{}()<>") & set(text)


@given(RAW)
def test_a_prompt_is_text_of_the_input_and_never_the_repr_of_a_container(raw: object) -> None:
    try:
        prompt = render_prompt(raw)
    except CandidateRefused:
        return
    messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    assert any(message.content.strip() for message in messages if message.role != "system")
    assert messages[-1].role != "assistant"
    assert all(_holds_no_repr(message.content) for message in messages)


@given(RAW)
def test_a_response_is_text_of_the_input_and_never_the_repr_of_a_container(raw: object) -> None:
    with suppress(CandidateRefused):
        assert _holds_no_repr(render_response(raw))


SAID = st.lists(st.tuples(st.sampled_from(["system", "user"]), st.text(st.characters(codec="utf-8"))))


@given(SAID.map(lambda said: [*said, ("user", "And now?")]))
def test_messages_are_the_same_as_dictionaries_and_as_objects(said: list[tuple[str, str]]) -> None:
    expected = tuple(Message(role, content) for role, content in said)
    dictionaries = [{"role": role, "content": content} for role, content in said]
    assert render_prompt(dictionaries) == expected
    assert render_prompt([SimpleNamespace(**message) for message in dictionaries]) == expected
    assert render_prompt({"messages": dictionaries}) == expected
    assert render_prompt(SimpleNamespace(messages=tuple(dictionaries))) == expected
    assert render_prompt(expected) == expected


def test_a_text_stays_as_it_is() -> None:
    assert render_prompt("  What?\n") == "  What?\n"
    assert render_response("  That.\n") == "  That.\n"


def test_the_type_of_a_langchain_message_is_its_role() -> None:
    conversation = [
        SimpleNamespace(type="system", content="Be brief."),
        SimpleNamespace(type="human", content="Hello"),
        SimpleNamespace(type="ai", content="Hi", tool_calls=[]),
        SimpleNamespace(type="tool", content="4"),
        {"type": "human", "content": [{"type": "text", "text": "And?"}]},
    ]
    prompt = render_prompt(conversation)
    assert [message.role for message in prompt if isinstance(message, Message)] == [
        "system",
        "user",
        "assistant",
        "tool",
        "user",
    ]


def test_text_parts_are_joined() -> None:
    parts = ["a", {"type": "text", "text": "b"}, SimpleNamespace(type="output_text", text="c")]
    assert render_response(parts) == "abc"
    assert render_response({"content": parts}) == "abc"
    assert render_prompt([{"role": "user", "content": [{"type": "input_text", "text": "q"}]}]) == (
        Message("user", "q"),
    )


@pytest.mark.parametrize("kind", ["image", "image_url", "input_image", "audio", "input_audio", "video", "file"])
def test_images_and_sounds_are_refused_as_such(kind: str) -> None:
    content = [{"type": "text", "text": "see"}, {"type": kind, kind: "x"}]
    assert _refusal(render_response, content) is RefusalReason.MEDIA
    assert _refusal(render_prompt, [{"role": "user", "content": content}]) is RefusalReason.MEDIA


@pytest.mark.parametrize("part", [{"type": "text"}, 3, None, ["a"], {}])
def test_a_part_that_is_not_text_is_refused(part: object) -> None:
    content = [{"type": "text", "text": "see"}, part]
    assert _refusal(render_response, content) is RefusalReason.CONTENT_NOT_TEXT
    assert _refusal(render_prompt, [{"role": "user", "content": content}]) is RefusalReason.CONTENT_NOT_TEXT


@pytest.mark.parametrize("last", [{"role": "assistant", "content": "a"}, SimpleNamespace(type="ai", content="a")])
def test_a_prompt_that_ends_with_the_assistant_is_refused(last: object) -> None:
    prompt = [{"role": "user", "content": "q"}, last]
    assert _refusal(render_prompt, prompt) is RefusalReason.PROMPT_ENDS_WITH_ASSISTANT


@pytest.mark.parametrize("last", [{"role": "assistant", "content": "a"}, SimpleNamespace(type="ai", content="a")])
def test_a_conversation_is_read_without_the_response_it_ends_with(last: object) -> None:
    before = [{"role": "user", "content": "q"}]
    assert without_reply([*before, last], "a") == before
    assert without_reply((*before, last), "a") == tuple(before)


@pytest.mark.parametrize(
    "prompt",
    [
        "a",
        None,
        [],
        [{"role": "user", "content": "a"}],
        [{"role": "assistant", "content": "something else"}],
        [{"role": "assistant", "content": "a", "tool_calls": [{"id": "1"}]}],
        [{"role": "tool", "content": "a"}],
        [3],
    ],
)
def test_what_does_not_end_with_the_response_is_left_as_it_is(prompt: object) -> None:
    assert without_reply(prompt, "a") is prompt


@pytest.mark.parametrize("render", [render_prompt, render_response])
def test_a_lone_surrogate_is_refused(render: Any) -> None:
    assert _refusal(render, "a\ud800b") is RefusalReason.INVALID_UNICODE
    nested = [{"role": "user", "content": "\udfff"}] if render is render_prompt else {"content": ["\udfff"]}
    assert _refusal(render, nested) is RefusalReason.INVALID_UNICODE


@pytest.mark.parametrize("raw", [None, [], (), {}, 0])
def test_a_prompt_of_nothing_is_refused_as_missing(raw: object) -> None:
    assert _refusal(render_prompt, raw) is RefusalReason.MISSING_PROMPT


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " \n\u3000",
        [{"role": "user", "content": ""}],
        [{"role": "system", "content": "Be brief."}],
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " "}]},
        [{"role": "user", "content": [{"type": "text", "text": "\t"}]}],
    ],
)
def test_a_prompt_that_says_nothing_is_refused_as_missing(raw: object) -> None:
    assert _refusal(render_prompt, raw) is RefusalReason.MISSING_PROMPT


def test_a_blank_message_after_one_that_says_something_stays() -> None:
    raw = [{"role": "user", "content": "Why?"}, {"role": "user", "content": ""}]
    assert render_prompt(raw) == (Message("user", "Why?"), Message("user", ""))


@pytest.mark.parametrize("raw", [3, {"messages": []}, {"messages": "q"}, object(), b"q"])
def test_a_prompt_that_is_neither_text_nor_messages_is_refused(raw: object) -> None:
    assert _refusal(render_prompt, raw) is RefusalReason.CONTENT_NOT_TEXT


@pytest.mark.parametrize(
    "item", ["q", {}, {"role": 3, "content": "q"}, {"type": "odd", "content": "q"}, {"role": "user"}]
)
def test_a_message_without_a_role_or_a_text_is_refused(item: object) -> None:
    assert _refusal(render_prompt, [item]) is RefusalReason.CONTENT_NOT_TEXT


def test_a_missing_response_is_refused() -> None:
    assert _refusal(render_response, None) is RefusalReason.MISSING_RESPONSE


@pytest.mark.parametrize("raw", [{"content": []}, {"content": None}, []])
def test_a_response_of_nothing_is_missing(raw: object) -> None:
    assert _refusal(render_response, raw) is RefusalReason.MISSING_RESPONSE


@pytest.mark.parametrize("raw", [{}, {"content": {"a": 1}}, object(), b"a"])
def test_a_response_that_is_not_text_is_refused(raw: object) -> None:
    assert _refusal(render_response, raw) is RefusalReason.CONTENT_NOT_TEXT


@pytest.mark.parametrize(("raw", "text"), [(42, "42"), (-1.5, "-1.5"), (True, "True"), (0, "0")])
def test_a_number_is_a_response(raw: object, text: str) -> None:
    assert render_response(raw) == text


class Role(Enum):
    ASSISTANT = "assistant"
    USER = "user"


def test_a_role_may_be_an_enum_member() -> None:
    assert render_prompt([{"role": Role.USER, "content": "q"}]) == (Message("user", "q"),)


@pytest.mark.parametrize("role", [Role.ASSISTANT, "ai"])
def test_a_prompt_that_ends_with_the_assistant_is_refused_whatever_its_role_is_called(role: object) -> None:
    prompt = [{"role": "human", "content": "q"}, {"role": role, "content": "a"}]
    assert _refusal(render_prompt, prompt) is RefusalReason.PROMPT_ENDS_WITH_ASSISTANT


def test_a_role_that_is_not_unicode_is_refused() -> None:
    assert _refusal(render_prompt, [{"role": "\ud800", "content": "q"}]) is RefusalReason.INVALID_UNICODE


def test_a_part_with_an_odd_type_is_refused() -> None:
    assert _refusal(render_response, [{"type": [], "text": "x"}]) is RefusalReason.CONTENT_NOT_TEXT
