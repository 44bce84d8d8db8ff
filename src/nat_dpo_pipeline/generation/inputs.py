"""What a run starts from: a topic, a question, or messages."""

import json
from contextlib import suppress
from dataclasses import dataclass, replace

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.rendering import render_prompt
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.generation.settings import InputKind


@dataclass(frozen=True, slots=True)
class Request:
    """Either a topic to find questions for, or the messages to respond to.

    `run` counts how often the process ran over the same input before: a later run asks anew.
    """

    topic: str | None = None
    messages: tuple[Message, ...] = ()
    example_id: str = ""
    run: int = 0

    def __str__(self) -> str:
        return self.topic if self.topic is not None else self.messages[-1].content


def read_request(text: str, kind: InputKind = InputKind.AUTO, *, example_id: str = "", run: int = 0) -> Request:
    """A topic, a question, or JSON: `{"topic"}`, `{"question"}`, `{"messages"}` or a list of messages.

    Raises InputError; a message list that cannot be a prompt raises its subclass CandidateRefused.
    """
    return replace(_read(text, kind), example_id=example_id, run=run)


def _read(text: str, kind: InputKind) -> Request:
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        with suppress(json.JSONDecodeError):
            return _structured_request(_parsed_json(stripped))
    if not stripped:
        raise InputError("the input is empty: give a topic, a question, or messages as JSON")
    render_prompt(stripped)  # refuses what is not Unicode
    is_question = stripped.endswith("?") if kind is InputKind.AUTO else kind is InputKind.QUESTION
    return Request(messages=(Message("user", stripped),)) if is_question else Request(topic=stripped)


def _parsed_json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise  # plain text that happens to start with a bracket
    except (ValueError, RecursionError) as error:
        raise InputError(f"the input cannot be read as JSON: {error}") from error


def _structured_request(value: object) -> Request:
    if isinstance(value, dict):
        for name in ("topic", "question"):
            if isinstance(value.get(name), str):
                return _read(value[name], InputKind(name))
        value = value.get("messages")
    prompt = render_prompt(value) if value else ""
    if not prompt or isinstance(prompt, str):
        raise InputError('a JSON input needs one of "topic", "question" or "messages"')
    return Request(messages=prompt)
