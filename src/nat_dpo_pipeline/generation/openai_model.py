"""Chat models over the openai package: one call in, one reply out, every failure translated once."""

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any

import aiohttp
import openai
from openai import AsyncOpenAI

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.chat import Call, Route
from nat_dpo_pipeline.generation.replies import ChatReply, read_samples
from nat_dpo_pipeline.generation.server_errors import refusal
from nat_dpo_pipeline.generation.servers import address_of, allowed_by, error_in, error_text, quiet_request_logs, quoted
from nat_dpo_pipeline.generation.settings import AS_CONFIGURED, Sampling

logger = logging.getLogger(__name__)

_SECONDS_TO_LIST_MODELS = 5.0
# Without it vLLM gives the sigmoid of a reward, which is 1.0 for all rewards above 17. From 0.10.1 on it was called
# `activation`, and `softmax` for reward models (vLLM's pull request 20538); servers ignore the names they do not know.
_NO_ACTIVATION = {"use_activation": False, "activation": False, "softmax": False}
_STATUS = re.compile("[45][0-9][0-9]")
_USE_COMPLETION_TOKENS = re.compile(r"\buse \W{0,3}max_completion_tokens\b", re.IGNORECASE)
# docs.litellm.ai/docs/proxy/response_headers
_COST = "x-litellm-response-cost"
# llama.cpp and Anthropic refuse several choices with 400; a server that never heard of them may also break.
_MAY_BE_FOR_N = frozenset({400, 422, 500, 501})


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A chat model and how it is asked. `name` is what the user calls it; None leaves a parameter to the server."""

    name: str
    model: str
    base_url: str
    api_key: str = field(repr=False)
    sampling: Sampling = AS_CONFIGURED
    timeout_seconds: float = 120.0


class OpenAIChatModel:
    """A model reached with the `openai` package. `app` answers in this process instead of over the network.

    Raises ConfigurationError for a base_url that is none.
    """

    def __init__(self, settings: ModelSettings, app: object | None = None) -> None:
        self._settings = settings
        address = address_of(settings.base_url, f"model {settings.name!r}")
        self._address = address.url
        self._is_in_process = app is not None
        self._wants_completion_tokens = False
        self._has_answered = False
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
        """Return all that determines the reply to a call, wherever the model is served; no credential.

        A model in this process has no name of its own: its address says which one it is.
        """
        if self._is_in_process:
            return self.identity_at_server(call)
        return {"route": call.route, "body": self._body(call), "sample": call.sample, "run": call.run}

    def identity_at_server(self, call: Call) -> dict[str, object]:
        """Return the same with the address: the key of `journal_by: server` and of older journals."""
        return {"url": self._url(call.route), "body": self._body(call), "sample": call.sample, "run": call.run}

    def may_be_one_request(self, call: Call) -> bool:
        """Return whether samples of a call may be choices of one request.

        With a seed each sample is a request of its own: else the n-th reply would depend on how many are asked for.
        Without randomness all are alike, and vLLM refuses to give several.
        """
        parameters = _parameters(self._settings.sampling, call.sampling)
        is_drawn = parameters.keys().isdisjoint(("seed", "n")) and parameters.get("temperature") != 0
        return call.route is Route.CHAT and is_drawn

    async def complete(self, call: Call) -> ChatReply:
        body = self._sent_body(call)
        try:
            # A server that sends a byte now and then never meets the client's own time-out, which is one for each read.
            async with asyncio.timeout(self._settings.timeout_seconds):
                # The raw response: reward models send bodies that do not fit the client's types.
                response = await self._client.post(self._url(call.route), body=body, cast_to=_raw_response())
        except openai.OpenAIError as error:
            if "max_tokens" in body and _wants_completion_tokens(error):
                self._wants_completion_tokens = True
                return await self._again(call)
            if call.also and getattr(error, "status_code", None) in _MAY_BE_FOR_N:
                return await self._again(replace(call, also=()))
            raise self._translated(error) from error
        except aiohttp.ClientError as error:
            # openai 3 lets through what its transport does not know: replies that are not HTTP.
            raise self._unreachable(error) from error
        except TimeoutError as error:
            if call.also:  # a server that writes one sample after the other takes longer for several
                return await self._again(replace(call, also=()))
            message = f"{self._described()} did not answer within {self._settings.timeout_seconds:g} s"
            raise ModelError(message, overloaded=True) from error
        except UnicodeError as error:
            raise ModelError(f"{self._described()} cannot be sent this: {error}", unsent=True) from error
        return self._read(response, call)

    async def _again(self, call: Call) -> ChatReply:
        """Ask at once in another way, after a request that is refused in this one."""
        reply = await self.complete(call)
        return replace(reply, retries=reply.retries + 1)

    def _read(self, response: Any, call: Call) -> ChatReply:
        try:
            body = json.loads(response.text)
        except (ValueError, RecursionError) as error:
            message = f"{self._described()} answered with something that is not JSON: {error}"
            raise ModelError(message, transient=True) from error
        is_chat = call.route is Route.CHAT
        key = "choices" if is_chat else "data"
        if not (isinstance(body, dict) and body.get(key)):
            raise self._without_an_answer(body, key)
        choice = body[key][0] if is_chat and isinstance(body[key], list) and not call.also else None
        if isinstance(choice, dict) and isinstance(choice.get("error"), dict):
            raise self._without_an_answer(choice, key)  # OpenRouter, when the provider fails under way
        self._say_once_what_is_allowed(response.headers)
        told = _with_cost(body, response.headers)
        return read_samples(told, self._settings.name, self._settings.model, most=1 + len(call.also))

    def _say_once_what_is_allowed(self, headers: Mapping[str, str]) -> None:
        """For whoever sets `limits`. The numbers slow nothing down: when more may be asked, only a 429 says exactly."""
        if not self._has_answered and (allowed := allowed_by(headers)):
            logger.info("%s allows %s", self._described(), allowed)
        self._has_answered = True

    def _without_an_answer(self, body: object, key: str) -> ModelError:
        said = self._quoted(error_text(body, repr(body)))
        error = error_in(body)
        if isinstance(body, dict) and isinstance(error, dict) and error is not body:
            # Proxies and routers answer 200 with an error in the body, and the status in its code.
            status = str(error.get("code"))
            return refusal(self._described(), int(status) if _STATUS.fullmatch(status) else 500, {}, error, said)
        return ModelError(f"{self._described()} answered without {key}: {said}", transient=True)

    async def served(self) -> list[str]:
        """The names of the models that the server has; none when it does not say within a few seconds."""
        with suppress(openai.OpenAIError, aiohttp.ClientError, TimeoutError, ValueError):
            async with asyncio.timeout(_SECONDS_TO_LIST_MODELS):
                body = json.loads(await self._client.get("/models", cast_to=str))
            models = body.get("data") if isinstance(body, dict) else None
            if isinstance(models, list):
                return [str(one["id"]) for one in models if isinstance(one, dict) and "id" in one]
        return []

    async def aclose(self) -> None:
        await self._client.close()

    def _url(self, route: Route) -> str:
        base_url = self._address.rstrip("/")
        return f"{base_url if route is Route.CHAT else base_url.removesuffix('/v1')}/{route}"

    def _body(self, call: Call) -> dict[str, object]:
        messages = [{"role": message.role, "content": message.content} for message in call.messages]
        configured = self._settings.sampling
        if call.route is Route.CHAT:
            parameters = _parameters(configured, call.sampling)
        else:
            parameters = {**_NO_ACTIVATION, **configured.extra_body, **call.sampling.extra_body}
        return {"model": self._settings.model, "messages": messages, **parameters}

    def _sent_body(self, call: Call) -> dict[str, object]:
        """Return the body as it is sent: what differs between samples, and from server to server, is no part of what a
        call is known by.
        """
        body = self._body(call)
        if call.also:
            body["n"] = 1 + len(call.also)
        if call.sampling.seed is None and isinstance(seed := body.get("seed"), int):
            body["seed"] = seed + call.sample  # that of the llm entry, which would make all samples alike
        if self._wants_completion_tokens and "max_tokens" in body:
            body["max_completion_tokens"] = body.pop("max_tokens")
        return body

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
        # What stands behind the question mark may be a key.
        asked = str(error.request.url).partition("?")[0]
        return refusal(self._described(), error.status_code, error.response.headers, error.body, said, asked)


def _wants_completion_tokens(error: openai.OpenAIError) -> bool:
    """Return whether a refusal says that the limit of tokens has another name, as OpenAI's reasoning models do.

    vLLM names both in a refusal of a limit that is too large, which another name does not mend.
    """
    return isinstance(error, openai.BadRequestError) and _USE_COMPLETION_TOKENS.search(str(error.body)) is not None


def _with_cost(body: Mapping[str, object], headers: Mapping[str, str]) -> Mapping[str, object]:
    """Return the body with the cost that a LiteLLM proxy says in a header, where OpenRouter has it."""
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    with suppress(ValueError):
        told = finite_number(float(headers.get(_COST, "")))
        if told is not None and "cost" not in counts:
            return {**body, "usage": {**counts, "cost": told}}
    return body


def _parameters(defaults: Sampling, asked: Sampling) -> dict[str, object]:
    return {**defaults.given(), **defaults.extra_body, **asked.given(), **asked.extra_body}


def _http_library() -> Any:
    # openai 3 speaks httpx2 and openai 2 httpx: take whichever its client is made of.
    client_class = next(base for base in openai.DefaultAsyncHttpxClient.__mro__ if base.__name__ == "AsyncClient")
    return import_module(client_class.__module__.partition(".")[0])


@cache
def _raw_response() -> Any:
    """The class of responses, which the client gives when it is asked for it, without reading them."""
    return _http_library().Response


@cache
def certificates() -> Any:
    """One for all clients: it takes 20 ms to load."""
    return _http_library().create_ssl_context()


def _client_over_network() -> Any:
    return openai.DefaultAioHttpClient(verify=certificates())


def _client_in_process(app: object) -> Any:
    return openai.DefaultAsyncHttpxClient(transport=_http_library().ASGITransport(app=app), verify=certificates())
