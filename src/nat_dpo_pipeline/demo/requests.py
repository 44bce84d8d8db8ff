"""The body of a chat completion request → the values that the demo uses, or InputError."""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import InputError

_MOST_CHOICES = 128
_BEFORE_THE_PROMPT = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What of a request the demo looks at; sampling parameters such as `temperature` mean nothing to it."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    seed: int | None = None
    choices: int = 1


def parse(body: bytes) -> ChatRequest:
    """The request in a JSON body. Raises InputError that names what is wrong."""
    fields = _json_object(body)
    if fields.get("stream"):
        raise InputError("the demo model does not stream: leave out stream=true")
    model = fields.get("model")
    if not isinstance(model, str):
        raise InputError(f"model must be a string, got {reprlib.repr(model)}")
    max_tokens = _integer(fields, "max_completion_tokens", low=1)
    return ChatRequest(
        model=model,
        messages=_messages(fields.get("messages")),
        max_tokens=_integer(fields, "max_tokens", low=1) if max_tokens is None else max_tokens,
        seed=_integer(fields, "seed"),
        choices=_integer(fields, "n", low=1, high=_MOST_CHOICES) or 1,
    )


def prompt_of(messages: tuple[Message, ...]) -> str:
    """The text of the only user message; system messages may come before it. Raises InputError."""
    *before, last = messages
    if last.role != "user" or any(message.role not in _BEFORE_THE_PROMPT for message in before):
        raise InputError("the demo writer expects one user message, with nothing but system messages before it")
    return last.content


def answered_of(messages: tuple[Message, ...]) -> tuple[str, str]:
    """The last question and the response to score. Raises InputError unless user and assistant alternate."""
    expected = ("user", "assistant") * (len(messages) // 2)
    if tuple(message.role for message in messages) != expected:
        raise InputError("the demo reward model expects user and assistant messages in turn, the last of an assistant")
    return messages[-2].content, messages[-1].content


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("the body is not JSON") from error
    if not isinstance(fields, dict):
        raise InputError(f"the body must be a JSON object, got {reprlib.repr(fields)}")
    return fields


def _messages(raw: object) -> tuple[Message, ...]:
    if not isinstance(raw, list) or not raw:
        raise InputError(f"messages must be a list of at least one message, got {reprlib.repr(raw)}")
    return tuple(_message(item) for item in raw)


def _message(raw: object) -> Message:
    fields = raw if isinstance(raw, dict) else {}
    role, content = fields.get("role"), _text(fields.get("content"))
    if not isinstance(role, str) or content is None:
        raise InputError(f"a message needs a role and text content, got {reprlib.repr(raw)}")
    return Message(role, content)


def _text(content: object) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else None


def _integer(fields: Mapping[str, object], name: str, low: float = -inf, high: float = inf) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        bounds = "" if low == -inf else f" of at least {low}" + ("" if high == inf else f" and at most {high}")
        raise InputError(f"{name} must be a whole number{bounds}, got {reprlib.repr(value)}")
    return value
