"""Chat models behind the OpenAI API: one call in, one reply out, every failure translated once."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from types import MappingProxyType
from typing import Any, Protocol

import openai
from openai import AsyncOpenAI

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.errors import ModelError

_CREDENTIALS = re.compile(r"//[^/@]*@")
# 401, 402 and 403 say that the credential is wrong or its credit spent, 404 that there is no such model or server.
_HOPELESS = frozenset({401, 402, 403, 404})


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A chat model and how it is asked. `name` is what the user calls it; None leaves a parameter to the server.

    `max_retries` are those of the client itself; LimitedModel retries with regard to the other callers.
    """

    name: str
    model: str
    base_url: str
    api_key: str = field(repr=False)
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    timeout_seconds: float = 120.0
    max_retries: int = 0
    extra_body: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the server counted them; 0 where it did not."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The first choice of a chat completion, and the whole JSON body it came in; `replayed` from a journal or not."""

    text: str
    finish_reason: str | None
    model: str
    usage: Usage
    body: Mapping[str, object]
    replayed: bool = False


class ChatModel(Protocol):
    """What the recipe needs of a model. `complete` raises ModelError."""

    @property
    def name(self) -> str: ...

    async def complete(self, messages: Sequence[Message], *, seed: int | None = None) -> ChatReply: ...


class OpenAIChatModel:
    """A model reached with the `openai` package. `app` answers in this process instead of over the network."""

    def __init__(self, settings: ModelSettings, app: object | None = None) -> None:
        self._settings = settings
        _quiet_request_logs()
        self._client = AsyncOpenAI(
            base_url=settings.base_url,
            api_key=settings.api_key,
            timeout=settings.timeout_seconds,
            max_retries=settings.max_retries,
            http_client=None if app is None else _in_process_client(app, settings.base_url),
        )

    @property
    def name(self) -> str:
        return self._settings.name

    def identity(self, messages: Sequence[Message], seed: int | None = None) -> dict[str, Any]:
        """Everything that determines the reply to a call; no credential."""
        return {"endpoint": self._settings.base_url, **self._request(messages, seed)}

    async def complete(self, messages: Sequence[Message], *, seed: int | None = None) -> ChatReply:
        try:
            # The raw reply: reward models send bodies that do not fit the client's types.
            raw = await self._client.chat.completions.with_raw_response.create(**self._request(messages, seed))
        except openai.OpenAIError as error:
            raise self._translated(error) from error
        except UnicodeError as error:
            raise ModelError(f"{self._described()} cannot be sent this: {error}") from error
        try:
            body = raw.http_response.json()
        except (ValueError, RecursionError) as error:
            message = f"{self._described()} answered with something that is not JSON: {error}"
            raise ModelError(message, transient=True) from error
        if not (isinstance(body, dict) and body.get("choices")):
            # Proxies answer 200 with an error in the body.
            said = _said(body, repr(body)).replace(self._settings.api_key, "***")
            raise ModelError(f"{self._described()} answered without a choice: {said}", transient=True)
        return read_reply(body, self._settings.model)

    async def aclose(self) -> None:
        await self._client.close()

    def _request(self, messages: Sequence[Message], seed: int | None) -> dict[str, Any]:
        payload = [{"role": message.role, "content": message.content} for message in messages]
        return {"messages": payload, **_parameters(self._settings, seed)}

    def _described(self) -> str:
        address = _CREDENTIALS.sub("//", self._settings.base_url)
        return f"model {self._settings.name!r} ({self._settings.model} at {address})"

    def _translated(self, error: openai.OpenAIError) -> ModelError:
        if isinstance(error, openai.APITimeoutError):
            message = f"{self._described()} did not answer within {self._settings.timeout_seconds:g} s"
            return ModelError(message, transient=True)
        if isinstance(error, openai.APIConnectionError):
            message = f"{self._described()} cannot be reached: check its base_url and the network"
            return ModelError(message, transient=True)
        if isinstance(error, openai.APIStatusError):
            return self._refused(error)
        return ModelError(f"{self._described()} failed: {error}")

    def _refused(self, error: openai.APIStatusError) -> ModelError:
        # Some servers repeat the key that they refuse.
        said = _said(error.body, error.message).replace(self._settings.api_key, "***")
        if error.status_code in (401, 402, 403):
            advice = "check its api_key and the account's credit"
        elif error.status_code == 404:
            advice = "check its model_name and base_url"
        else:
            advice = "the request was refused" if error.status_code < 500 else "the server failed"
        return ModelError(
            f"{self._described()} answered {error.status_code}: {said} ({advice})",
            fatal=error.status_code in _HOPELESS,
            transient=error.status_code in (408, 409) or error.status_code >= 500,
            throttled=error.status_code == 429,
            retry_after=_retry_after(error.response.headers),
        )


def read_reply(body: object, requested_model: str, *, replayed: bool = False) -> ChatReply:
    """The reply in the JSON body of a chat completion; a missing piece is empty, for the parsers to refuse."""
    whole = body if isinstance(body, dict) else {}
    choices = whole.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    model = whole.get("model")
    return ChatReply(
        text=content if isinstance(content, str) else "",
        finish_reason=reason if isinstance(reason := choice.get("finish_reason"), str) else None,
        model=model if isinstance(model, str) and model else requested_model,
        usage=_usage(whole.get("usage")),
        body=whole,
        replayed=replayed,
    )


def _usage(raw: object) -> Usage:
    counts = raw if isinstance(raw, dict) else {}
    prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return Usage(prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds in `Retry-After`, which holds seconds or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(seconds, 0.0) if isfinite(seconds) else None
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def _parameters(settings: ModelSettings, seed: int | None) -> dict[str, Any]:
    chosen = {
        "model": settings.model,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed if seed is None else seed,
        "extra_body": dict(settings.extra_body) or None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _said(body: object, otherwise: str) -> str:
    """What an error body says, in one line."""
    inner = body.get("error", body) if isinstance(body, dict) else body
    message = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
    return " ".join(str(message or otherwise).split())[:300]


def _in_process_client(app: object, base_url: str) -> Any:
    # openai 3 speaks httpx2 and openai 2 httpx: take the transport of whichever its client is made of.
    client_class = openai.DefaultAsyncHttpxClient
    library = __import__(
        next(base for base in client_class.__mro__ if base.__name__ == "AsyncClient").__module__.split(".")[0]
    )
    return client_class(transport=library.ASGITransport(app=app), base_url=base_url)


def _quiet_request_logs() -> None:
    # Both libraries log a line per request at INFO, thousands in a run; a level that the user set stays.
    for name in ("httpx", "httpx2"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
