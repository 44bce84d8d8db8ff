"""Rows as the text that a chat template makes of them, and the tool calls in it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from nat_dpo_pipeline.errors import ConfigurationError

_Message = Mapping[str, Any]


def calls_in(messages: Sequence[_Message]) -> list[_Message]:
    """Return the functions that messages call: name, and arguments as an object."""
    return [call["function"] for message in messages for call in message.get("tool_calls") or ()]


def tools_in(row: Mapping[str, Any]) -> list[Any] | None:
    """Return the tools that a row has on offer, which are JSON text or a list, as a template takes them."""
    tools = row.get("tools")
    return (json.loads(tools) if isinstance(tools, str) else tools) or None


class ChatTemplate:
    """The chat template of a model or of a folder with a tokenizer."""

    def __init__(self, name: str) -> None:
        """Load it. Raises ConfigurationError where that fails, or where transformers is not installed."""
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ConfigurationError(
                "a chat template needs transformers: pip install 'nat-dpo-pipeline[train]'"
            ) from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigurationError(f"the tokenizer of {name!r} cannot be loaded: {reason}") from error
        if not self._tokenizer.chat_template:
            raise ConfigurationError(f"the tokenizer of {name!r} has no chat template")

    def text(self, messages: Sequence[_Message], tools: list[Any] | None, *, to_answer: bool = False) -> str | None:
        """Return a conversation as text, `to_answer` up to where an answer begins; None where it is refused."""
        from jinja2 import TemplateError

        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), tools=tools, tokenize=False, add_generation_prompt=to_answer
                )
            )
        except (TemplateError, TypeError, KeyError):
            return None


@cache
def chat_template(name: str) -> ChatTemplate:
    """Return the chat template of this name, loaded once a process. Raises ConfigurationError."""
    return ChatTemplate(name)


def lost_call(messages: Sequence[_Message], text: str) -> str | None:
    """Return the name of a call that a rendered text does not hold, or holds encoded twice.

    Templates have their own forms of a call; its name and each value of its arguments are in all of them.
    """
    for function in calls_in(messages):
        parts = (str(function["name"]), *_leaves(function["arguments"]))
        if not all(part in text for part in parts) or _is_encoded_twice(function["arguments"], text):
            return str(function["name"])
    return None


def _is_encoded_twice(arguments: object, text: str) -> bool:
    return any(json.dumps(json.dumps(form))[1:-1] in text for form in (arguments,) if arguments)


def _leaves(value: object) -> Iterator[str]:
    """Yield texts that stand for the values in arguments, as they are in JSON and in plain text alike."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        # Templates escape, or do not, what is no letter or digit.
        yield from (word for word in value.split() if word.isascii() and word.isalnum())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)
