"""Replies of chat models: the JSON body of a chat completion → what is said in it."""

from collections.abc import Mapping
from dataclasses import dataclass

from nat_dpo_pipeline.errors import ModelError


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the server counted them; 0 where it did not."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The first choice of a chat completion, and the whole JSON body it came in.

    `llm` is the user's name of the model that answered, `model` what the server calls it. `refused`: the server says
    that this is a refusal. `retries` failed before it, and with these errors models that should have answered;
    `replayed` from a journal, or not.
    """

    text: str
    finish_reason: str | None
    llm: str
    model: str
    usage: Usage
    body: Mapping[str, object]
    refused: bool = False
    retries: int = 0
    passed_over: tuple[ModelError, ...] = ()
    replayed: bool = False


def read_reply(body: object, llm: str, requested_model: str | None = None, *, replayed: bool = False) -> ChatReply:
    """The reply in the JSON body of a chat completion; a missing piece is empty, for the parsers to refuse."""
    whole = body if isinstance(body, dict) else {}
    choices = whole.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message, reason, model = choice.get("message"), choice.get("finish_reason"), whole.get("model")
    # Hosted reward models, and proxies before them, send a list of one message.
    message = message[0] if isinstance(message, list) and message else message
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    return ChatReply(
        text=content if isinstance(content, str) else "",
        finish_reason=reason if isinstance(reason, str) else None,
        llm=llm,
        model=model if isinstance(model, str) and model else requested_model or llm,
        usage=_usage(whole.get("usage")),
        body=whole,
        refused=bool(message.get("refusal")) or reason == "content_filter",
        replayed=replayed,
    )


def _usage(raw: object) -> Usage:
    counts = raw if isinstance(raw, dict) else {}
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return Usage(prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0)
