"""One conversation with a call, in the forms of the clients' own classes, is read as the same messages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolMessage,
    messages_to_dict,
)
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
)
from openai.types.responses.response_output_item import McpCall

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.messages import Message, Prompt, Reply, ToolCall, tools_of
from nat_dpo_pipeline.core.rendering import conversation, render_prompt, render_response, split_replies, without_reply
from nat_dpo_pipeline.core.thoughts import split_thoughts
from nat_dpo_pipeline.errors import CandidateRefused

ARGUMENTS = {"city": "Oslo", "days": 2}
CALL = ToolCall("weather", json.dumps(ARGUMENTS), "call00001")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CONVERSATION = (
    Message("system", "Be brief."),
    Message("user", "Cold in Oslo?"),
    Message("assistant", "Let me see.", (CALL,), reasoning="I should look."),
    Message("tool", "3 degrees", tool_call_id="call00001", name="weather"),
    Message("assistant", "Rather."),
)


def _chat() -> list[Any]:
    said = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "I should look.",
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}
            ],
        }
    )
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Cold in Oslo?"}]},
        said,
        {"role": "tool", "tool_call_id": "c", "content": "3 degrees"},
        ChatCompletionMessage(role="assistant", content="Rather."),
    ]


def _chat_json() -> list[Any]:
    return [one.model_dump(mode="json") if isinstance(one, ChatCompletionMessage) else one for one in _chat()]


def _responses() -> list[Any]:
    def message(text: str) -> ResponseOutputMessage:
        part = ResponseOutputText(annotations=[], text=text, type="output_text")
        return ResponseOutputMessage(id="m", content=[part], role="assistant", status="completed", type="message")

    summary: Any = [{"type": "summary_text", "text": "I should look."}]
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Cold in Oslo?"}]},
        ResponseReasoningItem(id="r", summary=summary, type="reasoning"),
        message("Let me see."),
        ResponseFunctionToolCall(
            arguments=json.dumps(ARGUMENTS), call_id="c", name="weather", type="function_call", id="f"
        ),
        {"type": "function_call_output", "call_id": "c", "output": "3 degrees"},
        message("Rather."),
    ]


def _responses_json() -> list[Any]:
    return [one if isinstance(one, dict) else one.model_dump(mode="json") for one in _responses()]


def _langchain() -> list[Any]:
    called = AIMessage(
        content="Let me see.",
        tool_calls=[{"name": "weather", "args": ARGUMENTS, "id": "c"}],
        additional_kwargs={"reasoning_content": "I should look."},
    )
    return [
        SystemMessage("Be brief."),
        HumanMessage("Cold in Oslo?"),
        called,
        ToolMessage("3 degrees", tool_call_id="c"),
        AIMessage("Rather."),
    ]


def _anthropic() -> list[Any]:
    """Return Anthropic's Messages form: results are parts of a user's message (docs.claude.com, tool use)."""
    called = [
        {"type": "thinking", "thinking": "I should look.", "signature": "s"},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c", "name": "weather", "input": ARGUMENTS},
    ]
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "3 degrees"}]}
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Cold in Oslo?"},
        {"role": "assistant", "content": called},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": [{"type": "text", "text": "Rather."}]},
    ]


def _atif() -> list[Any]:
    call = {"tool_call_id": "c", "function_name": "weather", "arguments": ARGUMENTS}
    return [
        {"source": "system", "message": "Be brief."},
        {"source": "user", "message": "Cold in Oslo?"},
        {
            "source": "agent",
            "message": "Let me see.",
            "reasoning_content": "I should look.",
            "tool_calls": [call],
            "observation": {"results": [{"source_call_id": "c", "content": "3 degrees"}]},
        },
        {"source": "agent", "message": "Rather."},
    ]


FORMS = {
    "chat": _chat(),
    "chat as JSON": _chat_json(),
    "responses": _responses(),
    "responses as JSON": _responses_json(),
    "langchain": _langchain(),
    "langchain, dumpd": dumpd(_langchain()),
    "langchain, messages_to_dict": messages_to_dict(_langchain()),
    "anthropic": _anthropic(),
    "atif": _atif(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_as_the_same_messages(form: str) -> None:
    found = conversation(FORMS[form])
    assert found == CONVERSATION
    assert [message.reasoning for message in found] == [message.reasoning for message in CONVERSATION]
    assert [message.tool_call_id for message in found] == [message.tool_call_id for message in CONVERSATION]
    assert render_prompt(FORMS[form][:-1]) == CONVERSATION[:-1]
    assert render_response(FORMS[form][-1]) == "Rather."


def test_a_text_after_a_call_with_null_as_content_is_taken() -> None:
    function = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
    asked = [
        {"role": "user", "content": "Cold in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
    ]
    prompt = render_prompt(asked)
    assert [message.content for message in prompt if isinstance(message, Message)] == ["Cold in Oslo?", "", "3"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (ARGUMENTS, json.dumps(ARGUMENTS)),
        (json.dumps(ARGUMENTS), json.dumps(ARGUMENTS)),
        (json.dumps(json.dumps(ARGUMENTS)), json.dumps(ARGUMENTS)),
        (None, "{}"),
        ("", "{}"),
        (7, "7"),
        ("{", "{"),
        ('"{', '"{'),
        ('"Oslo"', "Oslo"),
    ],
)
def test_arguments_are_read_as_objects_and_as_text(raw: object, text: str) -> None:
    reply = render_response({"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": raw}})
    assert isinstance(reply, Reply)
    assert reply.message.tool_calls[0].arguments == text


def test_arguments_that_langchain_could_not_read_are_kept() -> None:
    broken = InvalidToolCall(type="invalid_tool_call", name="weather", args='{"city": ', id="c", error="no JSON")
    reply = render_response(AIMessage(content="", invalid_tool_calls=[broken]))
    assert isinstance(reply, Reply)
    assert reply.message.tool_calls[0].arguments == '{"city": '


def test_results_without_ids_answer_the_oldest_call_of_their_name() -> None:
    def called(*names: str) -> dict[str, Any]:
        return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name}} for name in names]}

    found = conversation(
        [
            called("a", "b", "a"),
            {"role": "function", "name": "b", "content": "1"},
            {"role": "tool", "content": "2"},
            {"role": "tool", "content": "3", "tool_call_id": "unknown"},
        ]
    )
    assert [(one.tool_call_id, one.name) for one in found[1:]] == [
        ("call00002", "b"),
        ("call00001", "a"),
        ("unknown", None),
    ]


def test_calls_of_the_servers_own_tools() -> None:
    item = McpCall(id="m", arguments="{}", name="find", server_label="docs", type="mcp_call", output="found")
    found = conversation([item, {"role": "assistant", "content": "Here."}])
    assert [(one.role, one.text[:11] or one.content) for one in found] == [
        ("assistant", "<tool_call>"),
        ("tool", "found"),
        ("assistant", "Here."),
    ]
    with pytest.raises(CandidateRefused, match="hosted_tool"):
        conversation([{"type": "web_search_call", "id": "w", "status": "completed"}])


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "weather", "description": "Look.", "parameters": SCHEMA}},
        {"type": "function", "name": "weather", "description": "Look.", "parameters": SCHEMA, "strict": True},
        {"name": "weather", "description": "Look.", "input_schema": SCHEMA},
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_tools_on_offer_are_read_in_every_form(tool: dict[str, Any], as_text: bool) -> None:
    offered = json.dumps([tool]) if as_text else [tool]
    prompts: list[Prompt] = [
        render_prompt("Cold?", offered),
        render_prompt({"messages": [], "tools": offered} | _MESSAGES),
    ]
    for prompt in prompts:
        function = {"name": "weather", "description": "Look.", "parameters": SCHEMA}
        assert tools_of(prompt) == [{"type": "function", "function": function}]


_MESSAGES = {"messages": [{"role": "user", "content": "Cold?"}]}


def test_a_tool_without_parameters_takes_none() -> None:
    prompt = render_prompt("Cold?", [{"type": "function", "name": "now"}])
    assert tools_of(prompt)[0]["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}
    assert render_prompt("Cold?", "[]") == "Cold?"


@pytest.mark.parametrize("tools", ["{", 7, [7], [{"type": "web_search"}]])
def test_tools_of_no_known_form_are_refused(tools: object) -> None:
    with pytest.raises(CandidateRefused) as refused:
        render_prompt("Cold?", tools)
    assert refused.value.reason is RefusalReason.MALFORMED


def test_a_call_without_a_name_is_refused() -> None:
    with pytest.raises(CandidateRefused, match="malformed"):
        render_response({"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]})


def test_results_that_are_no_text_are_json() -> None:
    asked = [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]
    outputs = ({"a": 1}, None, [{"type": "input_text", "text": "x"}], [1])
    found = [
        conversation([*asked, {"type": "function_call_output", "call_id": "c", "output": one}])[-1].content
        for one in outputs
    ]
    assert found == ['{"a": 1}', "", "x", "[1]"]
    with pytest.raises(CandidateRefused, match="image"):
        conversation([*asked, {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}])


def test_a_rollout_begins_with_the_assistant() -> None:
    with pytest.raises(CandidateRefused, match="missing_response"):
        render_response([{"role": "tool", "content": "3"}, {"role": "assistant", "content": "Rather."}])


def test_a_prompt_whose_end_cannot_be_read_is_left_as_it_is() -> None:
    prompt = [{"role": "user", "content": "Cold?"}, {"role": "assistant", "content": [{"type": "image_url"}]}]
    assert without_reply(prompt, "Rather.") is prompt


@pytest.mark.parametrize(
    "part", [{"type": "text", "text": "a", "thought": True}, {"type": "thinking", "thinking": "a"}]
)
def test_parts_of_thoughts_are_kept_apart(part: dict[str, Any]) -> None:
    reply = render_response({"role": "assistant", "content": [part, {"type": "text", "text": "b"}]})
    assert isinstance(reply, Reply)
    assert (reply, reply.message.reasoning) == ("b", "a")


def test_a_reply_of_parts_alone_is_one_message() -> None:
    assert render_response([{"type": "text", "text": "a"}, "b"]) == "ab"
    with pytest.raises(CandidateRefused, match="content_not_text"):
        render_response([{"type": "tool_result", "tool_use_id": "c", "content": "x"}, "b"])
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image"}]}
    with pytest.raises(CandidateRefused, match="image"):
        conversation([{"role": "user", "content": [result]}])


@pytest.mark.parametrize("text", ["<think>\nHm.\n</think>\n\nYes.", "Hm.</think>Yes.", "[THINK]Hm.[/THINK]Yes."])
def test_thoughts_in_front_of_a_text_are_kept_apart(text: str) -> None:
    reply = render_response(text)
    assert isinstance(reply, Reply)
    assert (reply, reply.message.reasoning) == ("Yes.", "Hm.")


@pytest.mark.parametrize("text", ["<b>Yes.</b>", "Use `</think>` to close.", "[1]", "a |> b", "Here is my answer."])
def test_a_text_with_marks_of_something_else_is_a_text(text: str) -> None:
    assert type(render_response(text)) is str
    assert render_response(text) == text


def test_thoughts_that_never_ended_leave_no_answer() -> None:
    reply = render_response("<think>Hm, hm")
    assert (reply, isinstance(reply, Reply)) == ("", True)


def test_thoughts_in_front_of_a_message_are_kept_apart() -> None:
    said = {"role": "assistant", "content": "<think>Hm.</think>Yes."}
    (message,) = conversation([said])
    assert (message.content, message.reasoning) == ("Yes.", "Hm.")
    assert conversation([{**said, "role": "user"}])[0].content == "<think>Hm.</think>Yes."


marks = st.sampled_from(
    ["<think>", "</think>", "[THINK]", "[/THINK]", "◁think▷", "◁/think▷", "analysis", "assistantfinal"]
)
pieces = st.lists(marks | st.sampled_from([" ", "\n", "Hm.", "Yes", "<|channel|>final<|message|>"]), max_size=5).map(
    "".join
)


@given(st.lists(pieces))
def test_many_texts_are_split_as_one_is(texts: list[str]) -> None:
    found, expected = split_replies(texts), [render_response(text) for text in texts]
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))
    for text, reply in zip(texts, found, strict=True):
        if type(reply) is str:
            assert split_thoughts(text).thoughts == ""
