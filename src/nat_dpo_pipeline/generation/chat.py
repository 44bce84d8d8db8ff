"""Chat models behind the OpenAI API: one call in, one reply out, every failure translated once."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cache
from importlib import import_module
from math import isfinite
from typing import Any, Protocol, runtime_checkable

import aiohttp
import openai
from openai import AsyncOpenAI

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.servers import address_of, error_text, quiet_request_logs, quoted
from nat_dpo_pipeline.generation.settings import AS_CONFIGURED, Sampling

# 401, 402 and 403 say that the credential is wrong or its credit spent, 404 that there is no such model or server.
_HOPELESS = frozenset({401, 402, 403, 404})
# OpenAI says with a 429 that the credit is spent (platform.openai.com/docs/guides/error-codes).
_SPENT_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class Route(StrEnum):
    """Where a server takes a call; the last two are those of vLLM and SGLang for scalar reward models."""

    CHAT = "chat/completions"
    POOLING = "pooling"
    CLASSIFY = "classify"


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model.

    `sample` tells apart calls that are equal otherwise and yet are to be made several times, `run` the runs of one
    process over the same input. `place` is where the call stands among its like: a pool picks the member by it, or by
    the conversation so far when it is None. A call that is not `patient` is given up as soon as the model seems to be
    down, because another one can take over.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = AS_CONFIGURED
    sample: int = 0
    run: int = 0
    place: int | None = None
    patient: bool = True
    route: Route = Route.CHAT


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A chat model and how it is asked. `name` is what the user calls it; None leaves a parameter to the server."""

    name: str
    model: str
    base_url: str
    api_key: str = field(repr=False)
    sampling: Sampling = AS_CONFIGURED
    timeout_seconds: float = 120.0


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


class ChatModel(Protocol):
    """Whatever answers calls. `complete` raises ModelError."""

    @property
    def name(self) -> str: ...

    async def complete(self, call: Call) -> ChatReply: ...


@runtime_checkable
class Recalling(Protocol):
    """A model that may have the reply to a call on record."""

    def recall(self, call: Call) -> ChatReply | None: ...


class OpenAIChatModel:
    """A model reached with the `openai` package. `app` answers in this process instead of over the network.

    Raises ConfigurationError for a base_url that is none.
    """

    def __init__(self, settings: ModelSettings, app: object | None = None) -> None:
        self._settings = settings
        address = address_of(settings.base_url, f"model {settings.name!r}")
        self._address = address.url
        self._secrets = [settings.api_key, *address.secrets]
        quiet_request_logs()
        self._client = AsyncOpenAI(
            base_url=self._address,
            api_key=settings.api_key,
            timeout=None,  # see complete
            max_retries=0,
            default_headers=dict(address.login),
            default_query=dict(address.query),
            http_client=_client_over_network() if app is None else _client_in_process(app),
        )

    @property
    def name(self) -> str:
        return self._settings.name

    def identity(self, call: Call) -> dict[str, object]:
        """Everything that determines the reply to a call; no credential."""
        return {"url": self._url(call.route), "body": self._body(call), "sample": call.sample, "run": call.run}

    async def complete(self, call: Call) -> ChatReply:
        try:
            # A server that sends a byte now and then never meets the client's own time-out, which is one for each read.
            async with asyncio.timeout(self._settings.timeout_seconds):
                # The raw text: reward models send bodies that do not fit the client's types.
                text = await self._client.post(self._url(call.route), body=self._body(call), cast_to=str)
        except openai.OpenAIError as error:
            raise self._translated(error) from error
        except aiohttp.ClientError as error:
            # openai 3 lets through what its transport does not know: replies that are not HTTP.
            raise self._unreachable(error) from error
        except TimeoutError as error:
            message = f"{self._described()} did not answer within {self._settings.timeout_seconds:g} s"
            raise ModelError(message, overloaded=True) from error
        except UnicodeError as error:
            raise ModelError(f"{self._described()} cannot be sent this: {error}", unsent=True) from error
        return self._read(text, call.route)

    def _read(self, text: str, route: Route) -> ChatReply:
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            message = f"{self._described()} answered with something that is not JSON: {error}"
            raise ModelError(message, transient=True) from error
        key = "choices" if route is Route.CHAT else "data"
        if not (isinstance(body, dict) and body.get(key)):
            # Proxies answer 200 with an error in the body.
            said = self._quoted(error_text(body, repr(body)))
            raise ModelError(f"{self._described()} answered without {key}: {said}", transient=True)
        return read_reply(body, self._settings.name, self._settings.model)

    async def aclose(self) -> None:
        await self._client.close()

    def _url(self, route: Route) -> str:
        base_url = self._address.rstrip("/")
        return f"{base_url if route is Route.CHAT else base_url.removesuffix('/v1')}/{route}"

    def _body(self, call: Call) -> dict[str, object]:
        messages = [{"role": message.role, "content": message.content} for message in call.messages]
        parameters = {} if call.route is not Route.CHAT else _parameters(self._settings.sampling, call.sampling)
        return {"model": self._settings.model, "messages": messages, **parameters}

    def _described(self) -> str:
        return f"model {self._settings.name!r} ({self._settings.model} at {self._address})"

    def _quoted(self, said: str) -> str:
        return quoted(said, self._secrets)

    def _translated(self, error: openai.OpenAIError) -> ModelError:
        if isinstance(error, openai.APIStatusError):
            return self._refused(error)
        if isinstance(error, openai.APIConnectionError):
            # APITimeoutError is one of these, and as no time-out is set it is not about time: the transport over
            # aiohttp reports every lost or refused connection as a ConnectTimeout.
            return self._unreachable(error.__cause__ or error)
        return ModelError(f"{self._described()} failed: {self._quoted(str(error))}")

    def _unreachable(self, cause: BaseException) -> ModelError:
        said = self._quoted(str(cause) or type(cause).__name__)
        return ModelError(
            f"{self._described()} cannot be reached: {said} (check its base_url and the network)", transient=True
        )

    def _refused(self, error: openai.APIStatusError) -> ModelError:
        said = self._quoted(error_text(error.body, error.message))
        spent = error.status_code == 429 and _code(error.body) in _SPENT_CREDIT
        if spent or error.status_code in (401, 402, 403):
            advice = "check its api_key and the account's credit"
        elif error.status_code == 404:
            advice = "check its model_name and base_url"
        else:
            advice = "the request was refused" if error.status_code < 500 else "the server failed"
        retry_after = _retry_after(error.response.headers)
        # A server that is too busy may say so with a 503 and when to come back (RFC 9110, section 15.6.4).
        is_busy = error.status_code == 429 or (error.status_code == 503 and retry_after is not None)
        return ModelError(
            f"{self._described()} answered {error.status_code}: {said} ({advice})",
            fatal=spent or error.status_code in _HOPELESS,
            transient=error.status_code in (408, 409),
            throttled=is_busy and not spent,
            retry_after=retry_after,
            overloaded=error.status_code >= 500,
        )


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


def _parameters(defaults: Sampling, asked: Sampling) -> dict[str, object]:
    names = ("temperature", "top_p", "max_tokens", "seed")
    own = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    given = {name: getattr(defaults, name) for name in names if getattr(defaults, name) is not None}
    return {**given, **defaults.extra_body, **own, **asked.extra_body}


def _code(body: object) -> object:
    inner = body.get("error", body) if isinstance(body, dict) else body
    return inner.get("code") or inner.get("type") if isinstance(inner, dict) else None


def _http_library() -> Any:
    # openai 3 speaks httpx2 and openai 2 httpx: take whichever its client is made of.
    client_class = next(base for base in openai.DefaultAsyncHttpxClient.__mro__ if base.__name__ == "AsyncClient")
    return import_module(client_class.__module__.partition(".")[0])


@cache
def certificates() -> Any:
    """One for all clients: it takes 20 ms to load."""
    return _http_library().create_ssl_context()


def _client_over_network() -> Any:
    return openai.DefaultAioHttpClient(verify=certificates())


def _client_in_process(app: object) -> Any:
    return openai.DefaultAsyncHttpxClient(transport=_http_library().ASGITransport(app=app), verify=certificates())
