"""What can go wrong with a reply, and when it shall."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import orjson

from nat_dpo_pipeline.testing.messages import Request, Response, content_of

_HTML = {"content-type": "text/html"}


class Fault(StrEnum):
    """Faults of a reply, as OpenAI-compatible servers and the proxies before them produce them."""

    TOO_MANY_REQUESTS = "too_many_requests"
    RETRY_AFTER = "retry_after"
    RETRY_AFTER_MS = "retry_after_ms"
    RETRY_AFTER_OF_PROVIDER = "retry_after_of_provider"  # as the LiteLLM proxy names the header of the server behind it
    RETRY_IN_BODY = "retry_in_body"  # Google: a list, and the delay in its message and details
    BUSY = "busy"  # 503 with a delay
    SERVER_ERROR = "server_error"
    PLAIN_SERVER_ERROR = "plain_server_error"  # transformers serve: text, no JSON
    BAD_GATEWAY = "bad_gateway"
    UNAUTHORIZED = "unauthorized"  # and repeats the key, as some servers do
    WRONG_CONTENT_TYPE = "wrong_content_type"
    ERROR_AS_ANSWER = "error_as_answer"  # an error object with status 200
    TRUNCATED_JSON = "truncated_json"
    EMPTY_CHOICES = "empty_choices"
    NULL_CHOICES = "null_choices"
    GIVEN_UP = "given_up"  # half of the text, and the finish reason `error`: OpenRouter, vLLM
    ABORTED = "aborted"  # half of the text, and the finish reason `abort`: vLLM, SGLang
    CONTENT_IN_PARTS = "content_in_parts"  # valid: Mistral and proxies of Anthropic's models answer so
    MESSAGE_AS_LIST = "message_as_list"  # valid for a reward model: hosted nemotron-4-340b-reward answers so
    RESET = "reset"
    HANG = "hang"
    SLOW_DRIP = "slow_drip"  # a byte now and then, without end


#: With these the answer is whole, only in another form.
VALID = frozenset({Fault.CONTENT_IN_PARTS, Fault.MESSAGE_AS_LIST})

FaultPlan = Callable[[Request], Fault | None]


def after(count: int, fault: Fault) -> FaultPlan:
    """`count` requests are answered; all that follow meet the fault."""
    return lambda request: fault if request.number > count else None


def at_random(share: float, faults: Sequence[Fault], seed: int, *, most_in_a_row: int = 2) -> FaultPlan:
    """A share of the requests meets a fault, drawn from the seed, the request's content and how often it came before.

    So it does not depend on the order in which requests arrive. Equal requests meet at most `most_in_a_row` one after
    the other.
    """
    return _Dice(share, tuple(faults), seed, most_in_a_row).thrown


@dataclass(slots=True)
class _Dice:
    share: float
    faults: tuple[Fault, ...]
    seed: int
    most_in_a_row: int
    seen: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def thrown(self, request: Request) -> Fault | None:
        key = blake2b(request.content, digest_size=16).digest()
        times, in_a_row = self.seen.get(key, (0, 0))
        draw = blake2b(b"%d %d %b" % (self.seed, times, key), digest_size=8).digest()
        is_hit = in_a_row < self.most_in_a_row and int.from_bytes(draw[:4]) < self.share * 2**32
        self.seen[key] = (times + 1, in_a_row + 1 if is_hit else 0)
        return self.faults[int.from_bytes(draw[4:]) % len(self.faults)] if is_hit else None


def in_place_of_answer(fault: Fault, request: Request, retry_after: float) -> Response | None:
    """What a fault sends without asking for the answer; None for a fault that needs it."""
    if fault in _DELAYED:
        return _DELAYED[fault](retry_after)
    return _INSTEAD[fault](request) if fault in _INSTEAD else None


def bent(response: Response, fault: Fault) -> Response:
    """An answer as the fault spoils it."""
    return replace(response, body=_BENT[fault](content_of(response))) if fault in _BENT else response


def _error(message: str, code: str) -> dict[str, object]:
    return {"error": {"message": message, "type": code, "code": code}}


_TOO_MANY = Response(429, _error("Too many requests", "rate_limit_exceeded"))


def _google(seconds: float) -> Response:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds:g}s"}]
    message = f"You exceeded your current quota. Please retry in {seconds:g}s."
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}
    return Response(429, orjson.dumps([{"error": error}]))


def _unauthorized(request: Request) -> Response:
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    return Response(401, _error(f"Incorrect API key provided: {key}", "invalid_api_key"))


def _with_choices(content: bytes, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    body = orjson.loads(content)
    return orjson.dumps({**body, "choices": [{**choice, **change(choice)} for choice in body["choices"]]})


def _with_messages(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    return _with_choices(content, lambda choice: {"message": change(choice["message"])})


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    text = message["content"]
    parts = (text[: len(text) // 2], text[len(text) // 2 :])
    return {**message, "content": [{"type": "text", "text": part} for part in parts]}


def _half(choice: dict[str, Any], reason: str) -> dict[str, Any]:
    message = choice["message"]
    half = {**message, "content": message["content"][: len(message["content"]) // 2]}
    return {"message": half, "finish_reason": reason}


_DELAYED: Mapping[Fault, Callable[[float], Response]] = {
    Fault.RETRY_AFTER: lambda seconds: replace(_TOO_MANY, headers={"retry-after": f"{seconds:g}"}),
    Fault.RETRY_AFTER_MS: lambda seconds: replace(_TOO_MANY, headers={"retry-after-ms": f"{1000 * seconds:g}"}),
    Fault.RETRY_AFTER_OF_PROVIDER: lambda seconds: Response(
        429, _error("Too many requests", "throttling_error"), {"llm_provider-retry-after": f"{seconds:g}"}
    ),
    Fault.RETRY_IN_BODY: _google,
    Fault.BUSY: lambda seconds: Response(503, _error("Try later", "unavailable"), {"retry-after": f"{seconds:g}"}),
}
_INSTEAD: Mapping[Fault, Callable[[Request], Response]] = {
    Fault.TOO_MANY_REQUESTS: lambda _: _TOO_MANY,
    Fault.SERVER_ERROR: lambda _: Response(500, _error("The server had an error", "server_error")),
    Fault.BAD_GATEWAY: lambda _: Response(502, b"<html><h1>502 Bad Gateway</h1></html>", _HTML),
    Fault.PLAIN_SERVER_ERROR: lambda _: Response(500, b"Internal Server Error", {"content-type": "text/plain"}),
    Fault.ERROR_AS_ANSWER: lambda _: Response(200, _error("The upstream is overloaded", "server_is_overloaded")),
    Fault.WRONG_CONTENT_TYPE: lambda _: Response(200, b"<html><p>Sign in</p></html>", _HTML),
    Fault.UNAUTHORIZED: _unauthorized,
}
_BENT: Mapping[Fault, Callable[[bytes], bytes]] = {
    Fault.TRUNCATED_JSON: lambda content: content[: len(content) // 2],
    Fault.EMPTY_CHOICES: lambda content: orjson.dumps({**orjson.loads(content), "choices": []}),
    Fault.NULL_CHOICES: lambda content: orjson.dumps({**orjson.loads(content), "choices": None}),
    Fault.GIVEN_UP: lambda content: _with_choices(content, lambda choice: _half(choice, "error")),
    Fault.ABORTED: lambda content: _with_choices(content, lambda choice: _half(choice, "abort")),
    Fault.CONTENT_IN_PARTS: lambda content: _with_messages(content, _in_parts),
    Fault.MESSAGE_AS_LIST: lambda content: _with_messages(content, lambda message: [message]),
}
