"""Messages as frameworks write them → prompts, replies and rollouts; what is neither text nor a call is refused.

Read are the forms of OpenAI's Chat Completions and Responses, of Anthropic, of LangChain (its objects, `dumpd` and
`messages_to_dict`) and of ATIF's steps.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from itertools import chain

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.messages import (
    TOOLS,
    Message,
    Prompt,
    Rollout,
    ToolCall,
    is_blank,
    reply_of,
)
from nat_dpo_pipeline.core.said import get, read_call, read_message
from nat_dpo_pipeline.core.thoughts import FIRST_CHARACTERS, may_hold_thoughts
from nat_dpo_pipeline.errors import CandidateRefused

# LangChain messages name their role `type`, and two roles otherwise; ATIF's steps name it `source`.
_LANGCHAIN_TYPES = frozenset({"human", "ai", "system", "tool", "function"})
_ROLE_OF_NAME = {"human": "user", "ai": "assistant", "function": "tool", "model": "assistant"}
_ROLE_OF_SOURCE = {"user": "user", "agent": "assistant", "system": "system"}
_PLAIN_ROLES = frozenset({"user", "assistant", "system", "developer"})
# Items of OpenAI's Responses API that are no messages.
_CALLS = frozenset({"function_call", "custom_tool_call"})
_RESULTS = frozenset({"function_call_output", "custom_tool_call_output"})
_ITEMS = _CALLS | _RESULTS | {"reasoning", "mcp_call"}
_HOSTED = frozenset({"web_search_call", "file_search_call", "computer_call", "code_interpreter_call", "shell_call"})


def render_prompt(raw: object, tools: object = None) -> Prompt:
    """Return the prompt in `raw`: text, messages, or an object with `messages` and perhaps `tools`.

    Raises CandidateRefused, also for a blank one and for one that ends with the assistant.
    """
    offered = tools if tools else None if isinstance(raw, str) else get(raw, "tools")
    if isinstance(raw, str):
        prompt: Prompt = _valid(raw)
    else:
        prompt = _asked(raw)
    if is_blank(prompt):
        raise CandidateRefused(RefusalReason.MISSING_PROMPT)
    return with_tools(prompt, offered) if offered else prompt


def _asked(raw: object) -> tuple[Message, ...]:
    messages = raw if isinstance(raw, list | tuple) else get(raw, "messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise CandidateRefused(RefusalReason.MISSING_PROMPT if not raw else RefusalReason.CONTENT_NOT_TEXT)
    prompt = conversation(messages)
    if prompt[-1].role == "assistant":
        raise CandidateRefused(RefusalReason.PROMPT_ENDS_WITH_ASSISTANT)
    return prompt


def with_tools(prompt: Prompt, tools: object) -> Prompt:
    """Return a prompt with these tools on offer, in any of the known forms. Raises CandidateRefused."""
    offered = _tools(tools)
    if not offered:
        return prompt
    messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    return (Message(TOOLS, _valid(json.dumps(offered, ensure_ascii=False))), *messages)


def _tools(raw: object) -> list[dict[str, object]]:
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except ValueError as error:
            raise CandidateRefused(RefusalReason.MALFORMED) from error
    if not isinstance(raw, list | tuple):
        raise CandidateRefused(RefusalReason.MALFORMED)
    return [_tool(one) for one in raw]


def _tool(raw: object) -> dict[str, object]:
    """Return a tool in the form of Chat Completions; those of Responses and of Anthropic are flat."""
    function = get(raw, "function")
    flat = raw if function is None else function
    name = get(flat, "name")
    if not isinstance(name, str):
        raise CandidateRefused(RefusalReason.MALFORMED)
    made: dict[str, object] = {"name": name}
    if isinstance(described := get(flat, "description"), str):
        made["description"] = described
    schema = next((value for key in ("parameters", "input_schema", "args_schema") if (value := get(flat, key))), None)
    made["parameters"] = schema if isinstance(schema, Mapping) else {"type": "object", "properties": {}}
    return {"type": "function", "function": made}


def without_reply(prompt: object, response: object) -> object:
    """Return the messages of `prompt` without the response, where a workflow recorded a conversation to its end."""
    if not isinstance(prompt, list | tuple) or not prompt or get(prompt[-1], "role") in ("user", "system"):
        return prompt
    try:
        last, reply = reply_of(conversation(prompt[-1:])[-1]), render_response(response)
    except CandidateRefused:
        return prompt
    return prompt[:-1] if _role(prompt[-1]) == "assistant" and last == reply else prompt


def render_response(raw: object) -> str:
    """Return a reply: of a text, a number, text parts, or a message; of several messages a Rollout.

    Raises CandidateRefused.
    """
    if isinstance(raw, str):
        return split_reply(_valid(raw))
    if raw is None:
        raise CandidateRefused(RefusalReason.MISSING_RESPONSE)
    if isinstance(raw, bool | int | float):
        return str(raw)
    if isinstance(raw, list | tuple) and not _are_messages(raw):
        return reply_of(_one_message({"role": "assistant", "content": raw}))
    found = conversation(raw if isinstance(raw, list | tuple) else [_as_reply(raw)])
    return rollout_of(found)


def split_reply(text: str) -> str:
    """Return the reply in a text, whose thoughts are kept apart from its answer."""
    if not may_hold_thoughts(text):
        return text
    said = read_message({"content": text})
    return reply_of(Message("assistant", said.text, reasoning=said.thoughts)) if said.thoughts else text


def split_replies(texts: Iterable[str]) -> list[str]:
    """Return the replies in texts, as `split_reply` does. A hot path: most texts hold no mark and cost no call."""
    return [
        split_reply(text)
        if "</" in text or "|>" in text or "[/" in text or "◁/" in text or text[:1] in FIRST_CHARACTERS
        else text
        for text in texts
    ]


def rollout_of(messages: Sequence[Message]) -> str:
    """Return messages as a rollout, or as a reply when there is one; they begin with the assistant.

    Raises CandidateRefused when they do not.
    """
    if not messages or messages[0].role != "assistant":
        raise CandidateRefused(RefusalReason.MISSING_RESPONSE)
    replies = _joined(messages)
    return reply_of(replies[0]) if len(replies) == 1 else Rollout(tuple(replies))


def _are_messages(raw: Sequence[object]) -> bool:
    return bool(raw) and all(not isinstance(one, str) and _is_message(one) for one in raw)


def _is_message(item: object) -> bool:
    kind = get(item, "type")
    return get(item, "role") is not None or (isinstance(kind, str) and kind in _ITEMS | _LANGCHAIN_TYPES)


def _as_reply(raw: object) -> object:
    """Return a message that may lack its role, as that of a reply is known."""
    if isinstance(raw, Mapping) and not _is_message(raw) and "content" in raw:
        return {**raw, "role": "assistant"}
    return raw


def conversation(items: Iterable[object]) -> tuple[Message, ...]:
    """Return messages and items of any known form as messages; calls are numbered by their place.

    Raises CandidateRefused for what is no text, no call and no result of one.
    """
    found = list(chain.from_iterable(map(_messages, items)))
    return tuple(found) if all(_is_plain(one) for one in found) else tuple(_numbered(_joined(found)))


def _is_plain(message: Message) -> bool:
    return not (message.tool_calls or message.tool_call_id is not None or message.reasoning)


def _messages(item: object) -> Iterator[Message]:
    if (plain := _plain(item)) is not None:
        yield plain
        return
    item, kind = _unwrapped(item), get(item, "type")
    if isinstance(kind, str) and kind in _ITEMS:
        yield from _of_item(item, kind)
    elif isinstance(kind, str) and (kind in _HOSTED or kind.endswith("_call")):
        raise CandidateRefused(RefusalReason.HOSTED_TOOL)
    elif get(item, "source") is not None and get(item, "role") is None:
        yield from _of_step(item)
    else:
        yield from _of_message(item)


def _plain(item: object) -> Message | None:
    """Return, quickly, a message of nothing but text, as nearly all are; None for another one."""
    if type(item) is dict and len(item) == 2:
        role, content = item.get("role"), item.get("content")
        item = Message(role, content) if type(role) is str and type(content) is str else None
    if not isinstance(item, Message) or item.role not in _PLAIN_ROLES or item.tool_calls or item.reasoning:
        return None
    if item.role == "assistant" and may_hold_thoughts(item.content):
        return None
    _valid(item.content)
    return item


def _unwrapped(item: object) -> object:
    """Return the fields of a LangChain message, which `dumpd` and `messages_to_dict` put one level deeper."""
    if get(item, "type") == "constructor" and isinstance(kwargs := get(item, "kwargs"), Mapping):
        return kwargs
    data = get(item, "data")
    if isinstance(data, Mapping) and get(item, "role") is None and get(item, "type") in _LANGCHAIN_TYPES:
        return {"type": get(item, "type"), **data}
    return item


def _of_item(item: object, kind: str) -> Iterator[Message]:
    """Yield an item of OpenAI's Responses API; the parts of one reply follow one another, and are joined later."""
    if kind == "reasoning":
        said = read_message({"content": [item]})
        yield Message("assistant", "", reasoning=_valid(said.thoughts))
    elif kind in _RESULTS:
        yield _result(get(item, "output"), get(item, "call_id"), None)
    else:
        call = read_call(item)
        if kind == "mcp_call":
            # The server of the model made this call: its id has no other name.
            call = replace(call, id=str(get(item, "id") or ""))
        yield Message("assistant", "", (_checked(call),))
        if kind == "mcp_call":
            yield _result(get(item, "output") or get(item, "error") or "", call.id, call.name)


def _of_step(step: object) -> Iterator[Message]:
    """Yield a step of ATIF: a message, and after its calls what they gave."""
    role = _ROLE_OF_SOURCE.get(str(get(step, "source")))
    yield from _of_message({"role": role, "content": get(step, "message"), **_fields(step)})
    results = get(get(step, "observation"), "results")
    for result in results if isinstance(results, list) else []:
        yield _result(get(result, "content"), get(result, "source_call_id"), None)


def _fields(step: object) -> dict[str, object]:
    return {name: get(step, name) for name in ("tool_calls", "reasoning_content") if get(step, name)}


def _of_message(item: object) -> Iterator[Message]:
    role, said = _role(item), read_message(item)
    if said.has_media:
        raise CandidateRefused(RefusalReason.MEDIA)
    if said.others:
        raise CandidateRefused(RefusalReason.CONTENT_NOT_TEXT)
    for result in said.results:
        yield _result(get(result, "content"), get(result, "tool_use_id"), None)
    if role == "tool":
        name = get(item, "name")
        yield _result(get(item, "content"), get(item, "tool_call_id"), name if isinstance(name, str) else None)
    elif said.calls or said.text or said.thoughts or (get(item, "content") not in (None, []) and not said.results):
        reasoning = _valid(said.thoughts) if said.thoughts and role == "assistant" else None
        content = said.text if role == "assistant" else _whole(item, said.text)
        yield Message(role, _valid(content), tuple(map(_checked, said.calls)), reasoning=reasoning)
    elif not said.results:
        raise CandidateRefused(
            RefusalReason.MISSING_RESPONSE if role == "assistant" else RefusalReason.CONTENT_NOT_TEXT
        )


def _whole(item: object, text: str) -> str:
    """Return a text as it is: only the assistant thinks."""
    content = get(item, "content")
    return content if isinstance(content, str) else text


def _one_message(item: object) -> Message:
    found = conversation([item])
    if len(found) != 1:
        raise CandidateRefused(RefusalReason.CONTENT_NOT_TEXT)
    return found[0]


def _result(content: object, call_id: object, name: str | None) -> Message:
    return Message("tool", _result_text(content), tool_call_id=str(call_id or ""), name=name)


def _result_text(content: object) -> str:
    """Return what a tool gave as text; what is neither text nor parts of text is JSON."""
    if isinstance(content, str):
        return _valid(content)
    if isinstance(content, list | tuple):
        said = read_message({"content": content})
        if said.has_media:
            raise CandidateRefused(RefusalReason.MEDIA)
        if not said.others:
            return _valid(said.text)
    return "" if content is None else _valid(json.dumps(content, ensure_ascii=False, default=str))


def _checked(call: ToolCall) -> ToolCall:
    if not call.name:
        raise CandidateRefused(RefusalReason.MALFORMED)
    _valid(call.name), _valid(call.arguments)
    return call


def _joined(messages: Iterable[Message]) -> list[Message]:
    """Return messages with those of the assistant that follow one another as one reply.

    Thoughts, text and calls of a reply are items of their own in OpenAI's Responses.
    """
    found: list[Message] = []
    for message in messages:
        before = found[-1] if found else None
        if before is None or not message.role == before.role == "assistant":
            found.append(message)
            continue
        texts, thoughts = (before.content, message.content), (before.reasoning, message.reasoning)
        found[-1] = replace(
            before,
            content="\n".join(filter(None, texts)),
            tool_calls=before.tool_calls + message.tool_calls,
            reasoning="\n".join(filter(None, thoughts)) or None,
        )
    return found


def _numbered(messages: Iterable[Message]) -> Iterator[Message]:
    """Yield messages with ids by place: nine letters and digits, as Mistral's templates ask for.

    A result without an id answers the oldest call without a result, of its name if it has one.
    """
    count, open_calls = 0, list[tuple[str, ToolCall]]()
    for message in messages:
        if message.tool_calls:
            calls = []
            for call in message.tool_calls:
                count += 1
                calls.append(replace(call, id=f"call{count:05}"))
                open_calls.append((call.id, calls[-1]))
            message = replace(message, tool_calls=tuple(calls))
        elif message.role == "tool":
            answered = _answered(message, open_calls)
            if answered is not None:
                open_calls.remove(answered)
                message = replace(message, tool_call_id=answered[1].id, name=answered[1].name)
        yield message


def _answered(result: Message, calls: Sequence[tuple[str, ToolCall]]) -> tuple[str, ToolCall] | None:
    if result.tool_call_id:
        return next((one for one in calls if one[0] == result.tool_call_id), None)
    return next((one for one in calls if result.name in (None, one[1].name)), None)


def _role(item: object) -> str:
    role, kind = get(item, "role"), get(item, "type")
    if isinstance(role, Enum):
        role = role.value
    if role is None and isinstance(kind, str) and kind in _LANGCHAIN_TYPES:
        role = kind
    if not isinstance(role, str):
        raise CandidateRefused(RefusalReason.CONTENT_NOT_TEXT)
    return _ROLE_OF_NAME.get(role, _valid(role))


def _valid(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CandidateRefused(RefusalReason.INVALID_UNICODE) from error
    return text
