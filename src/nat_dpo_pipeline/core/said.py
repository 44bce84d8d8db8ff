"""A message as servers, clients and recorders write it → its text, thoughts and calls, and what else is in it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from nat_dpo_pipeline.core.messages import ToolCall
from nat_dpo_pipeline.core.thoughts import may_hold_thoughts, split_thoughts


class Part(StrEnum):
    """Kind of a part of a content."""

    TEXT = "text"
    THOUGHTS = "thoughts"
    REFUSAL = "refusal"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    MEDIA = "media"
    OTHER = "other"


# `type` of a part in the APIs named here, as of November 2026. Other types are no text.
_PARTS = {
    "text": Part.TEXT,  # OpenAI, Anthropic, Mistral, Cohere
    "input_text": Part.TEXT,  # OpenAI Responses
    "output_text": Part.TEXT,  # OpenAI Responses
    "thinking": Part.THOUGHTS,  # Anthropic, Mistral, Cohere
    "redacted_thinking": Part.THOUGHTS,  # Anthropic
    "reasoning": Part.THOUGHTS,  # OpenAI Responses, LangChain, gateways
    "reasoning_text": Part.THOUGHTS,  # OpenAI Responses
    "refusal": Part.REFUSAL,  # OpenAI
    "tool_use": Part.TOOL_CALL,  # Anthropic
    "tool_call": Part.TOOL_CALL,  # LangChain
    "tool_result": Part.TOOL_RESULT,  # Anthropic
    "image": Part.MEDIA,  # Anthropic, LangChain
    "image_url": Part.MEDIA,  # OpenAI
    "input_image": Part.MEDIA,  # OpenAI Responses
    "audio": Part.MEDIA,  # LangChain
    "input_audio": Part.MEDIA,  # OpenAI
    "video": Part.MEDIA,  # LangChain, Qwen
    "video_url": Part.MEDIA,  # vLLM
    "document": Part.MEDIA,  # Anthropic
    "file": Part.MEDIA,  # OpenAI, LangChain
    "input_file": Part.MEDIA,  # OpenAI Responses
}
# Where a message has its thoughts: DeepSeek, SGLang, llama.cpp, ATIF; vLLM, Groq, Together, OpenRouter; Ollama;
# OpenRouter; LiteLLM. Servers repeat them under several of these names: the first with text counts.
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
# Where a part of thoughts has its text; the signatures and encrypted data beside it are none.
_TEXTS = ("text", "thinking", "reasoning", "summary", "content")
_DEEPEST = 4
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Said:
    """Text, thoughts and calls of a message; `results` are parts with results of tools, `others` names of other parts.

    `has_media` is True with images, audio and files.
    """

    text: str
    thoughts: str
    calls: tuple[ToolCall, ...]
    results: tuple[object, ...]
    refused: bool
    has_media: bool
    others: tuple[str, ...]


def get(item: object, name: str) -> object:
    """Return a field of an object of JSON, or an attribute of a message of some client."""
    if type(item) is dict or isinstance(item, Mapping):  # the first is much quicker
        return item.get(name)
    return getattr(item, name, None)


def read_message(message: object) -> Said:
    """Return everything that a message says. Thoughts in front of its text are split from it."""
    content, refusal = get(message, "content"), get(message, "refusal")
    if isinstance(content, str) or content is None:
        parts: Sequence[tuple[Part, object]] = [(Part.TEXT, content or "")]
    else:
        parts = [_part(one) for one in (content if isinstance(content, list | tuple) else [content])]
    text = _joined(parts, Part.TEXT)
    split = split_thoughts(text) if may_hold_thoughts(text) else None
    declined = [*_strings(refusal), _joined(parts, Part.REFUSAL)]
    thoughts = (_reasoning(message), _joined(parts, Part.THOUGHTS), "" if split is None else split.thoughts)
    kinds = {kind for kind, _ in parts}
    return Said(
        text=(text if split is None else split.answer) or "\n".join(filter(None, declined)),
        thoughts="\n".join(filter(None, dict.fromkeys(one.strip() for one in thoughts))),
        calls=tuple(_calls(message, parts)),
        results=tuple(part for kind, part in parts if kind is Part.TOOL_RESULT),
        refused=bool(refusal) or Part.REFUSAL in kinds,
        has_media=Part.MEDIA in kinds,
        others=tuple(dict.fromkeys(str(name) for kind, name in parts if kind in (Part.OTHER, Part.MEDIA))),
    )


def _part(part: object) -> tuple[Part, object]:
    """Return the kind of a part of a content with its text, for a call or a result the part, else its name."""
    if isinstance(part, str):
        return Part.TEXT, part
    named = get(part, "type")
    if named is None and not isinstance(part, Mapping):
        return Part.OTHER, "null" if part is None else type(part).__name__
    if named is None:
        named = "text" if get(part, "text") is not None else "object"
    kind = _PARTS.get(named) if isinstance(named, str) else None
    if kind is None or (kind is Part.TEXT and not isinstance(get(part, "text"), str)):
        return Part.OTHER, f"{named!s:.{_LONGEST_NAME}}"
    if get(part, "thought") is True:  # Google
        kind = Part.THOUGHTS
    if kind is Part.TEXT:
        return kind, get(part, "text")
    if kind in (Part.TOOL_CALL, Part.TOOL_RESULT):
        return kind, part
    return kind, str(named) if kind is Part.MEDIA else "\n".join(_strings(part, (*_TEXTS, "refusal")))


def _joined(parts: Iterable[tuple[Part, object]], kind: Part) -> str:
    return "".join(str(text) for one, text in parts if one is kind)


def _reasoning(message: object) -> str:
    more = get(message, "additional_kwargs")  # LangChain
    found = ("\n".join(_strings(get(place, name))) for place in (message, more) for name in _REASONING)
    return next((text for text in found if text.strip()), "")


def _calls(message: object, parts: Iterable[tuple[Part, object]]) -> Iterator[ToolCall]:
    """Yield calls from the fields of a message, else from its parts: clients repeat those of parts as fields."""
    fields = get(message, "tool_calls")
    listed = list(fields) if isinstance(fields, list | tuple) else []
    failed = get(message, "invalid_tool_calls")  # LangChain: arguments that are not JSON
    listed += failed if isinstance(failed, list | tuple) else []
    if not listed and get(message, "function_call"):
        listed = [get(message, "function_call")]
    for raw in listed or [part for kind, part in parts if kind is Part.TOOL_CALL]:
        yield read_call(raw)


# Names of a call's function, arguments and id: OpenAI's two APIs, LangChain, Anthropic, ATIF.
_NAMES = ("name", "function_name")
_ARGUMENTS = ("arguments", "args", "input")
_IDS = ("call_id", "tool_call_id", "id")


def read_call(raw: object) -> ToolCall:
    """Return a call in any of the known forms."""
    function = get(raw, "function")
    named = raw if function is None or isinstance(function, str) else function
    name = function if isinstance(function, str) else _first(named, _NAMES)
    return ToolCall(str(name or ""), arguments_text(_first(named, _ARGUMENTS)), str(_first(raw, _IDS) or ""))


def _first(item: object, names: Iterable[str]) -> object:
    return next((value for name in names if (value := get(item, name)) is not None), None)


def arguments_text(raw: object) -> str:
    """Return arguments as JSON text; text that was encoded twice is decoded once."""
    if raw is None or raw == "":
        return "{}"
    if not isinstance(raw, str):
        return json.dumps(raw, ensure_ascii=False, default=str)
    if raw[:1] == '"':
        try:
            inner = json.loads(raw)
        except ValueError:
            return raw
        return inner if isinstance(inner, str) else raw
    return raw


def _strings(value: object, names: Sequence[str] = _TEXTS, depth: int = 0) -> Iterator[str]:
    """Yield every text in a value, in lists, and in objects under `names`, also in those of a client."""
    if isinstance(value, str):
        yield value
    elif value is not None and depth < _DEEPEST:
        inner = value if isinstance(value, list | tuple) else [get(value, name) for name in names]
        for one in inner:
            yield from _strings(one, names, depth + 1)
