import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import CandidateRefused, InputError
from nat_dpo_pipeline.generation.inputs import Request, read_request
from nat_dpo_pipeline.generation.settings import InputKind


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("Tea", InputKind.AUTO, Request(topic="Tea")),
        ("  Tea \n", InputKind.AUTO, Request(topic="Tea")),
        ("Why?", InputKind.AUTO, Request(messages=(Message("user", "Why?"),))),
        ("Why?", InputKind.TOPIC, Request(topic="Why?")),
        ("Tea", InputKind.QUESTION, Request(messages=(Message("user", "Tea"),))),
        ('{"topic": "Why?"}', InputKind.AUTO, Request(topic="Why?")),
        ('{"topic": "Tea"}', InputKind.QUESTION, Request(topic="Tea")),
        ('{"question": "Tea"}', InputKind.AUTO, Request(messages=(Message("user", "Tea"),))),
        ('[{"role": "user", "content": "q"}]', InputKind.TOPIC, Request(messages=(Message("user", "q"),))),
        ("{Tea}", InputKind.AUTO, Request(topic="{Tea}")),
        ("[draft] Tea?", InputKind.AUTO, Request(messages=(Message("user", "[draft] Tea?"),))),
    ],
)
def test_a_request_is_a_topic_or_messages(text: str, kind: InputKind, expected: Request) -> None:
    assert read_request(text, kind) == expected


def test_messages_keep_their_roles() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    expected = (Message("system", "Be brief."), Message("user", "Why?"))
    assert read_request(json.dumps({"messages": messages})) == Request(messages=expected)
    assert read_request(json.dumps(messages)) == Request(messages=expected)


@pytest.mark.parametrize("text", ["Tea", "Why?", '[{"role": "user", "content": "q"}]'])
def test_a_request_says_of_which_example_and_run_it_is(text: str) -> None:
    request = read_request(text, example_id="example-3", run=2)
    assert (request.example_id, request.run) == ("example-3", 2)
    assert (read_request(text).example_id, read_request(text).run) == ("", 0)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(topic="Tea"), "Tea"),
        (Request(topic=""), ""),
        (Request(messages=(Message("system", "Be brief."), Message("user", "Why?"))), "Why?"),
    ],
)
def test_a_request_is_shown_as_what_it_asks_for(request_: Request, text: str) -> None:
    assert str(request_) == text


@pytest.mark.parametrize("text", ["", "  \n", '{"topic": ""}', '{"question": " "}'])
def test_an_empty_request_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="the input is empty"):
        read_request(text)


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"messages": "Why?"}', '{"messages": []}', '{"topic": 3}', '{"prompt": "q"}']
)
def test_json_that_asks_for_nothing_is_an_input_error_that_says_what_is_needed(text: str) -> None:
    with pytest.raises(InputError, match='needs one of "topic", "question" or "messages"'):
        read_request(text)


@pytest.mark.parametrize("text", ["[" * 100_000, f'{{"topic": {"1" * 5000}}}'])
def test_json_that_python_cannot_read_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match="the input cannot be read as JSON"):
        read_request(text)


@pytest.mark.parametrize("messages", [[1], [{"content": "q"}], [{"role": "assistant", "content": "a"}]])
def test_messages_that_are_no_prompt_are_refused(messages: object) -> None:
    with pytest.raises(CandidateRefused):
        read_request(json.dumps({"messages": messages}))


@pytest.mark.parametrize("text", ["\ud800", '{"topic": "\\ud800"}', '[{"role": "user", "content": "\\ud800"}]'])
def test_what_is_not_unicode_is_refused(text: str) -> None:
    with pytest.raises(CandidateRefused, match="invalid_unicode"):
        read_request(text)


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(InputKind))
def test_any_text_is_a_request_or_an_input_error(text: str, kind: InputKind) -> None:
    try:
        request = read_request(text, kind)
    except InputError:
        return
    assert (request.topic is None) == bool(request.messages)
