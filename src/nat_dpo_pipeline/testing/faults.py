"""What can go wrong with a reply, and when it shall."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import blake2b

import orjson

from nat_dpo_pipeline.testing.messages import Request, Response, content_of

_HTML = {"content-type": "text/html"}


class Fault(StrEnum):
    """What can go wrong with a reply."""

    TOO_MANY_REQUESTS = "too_many_requests"
    RETRY_AFTER = "retry_after"
    SERVER_ERROR = "server_error"
    BAD_GATEWAY = "bad_gateway"
    UNAUTHORIZED = "unauthorized"  # and repeats the key, as some servers do
    WRONG_CONTENT_TYPE = "wrong_content_type"
    TRUNCATED_JSON = "truncated_json"
    EMPTY_CHOICES = "empty_choices"
    MESSAGE_AS_LIST = "message_as_list"  # valid for a reward model: hosted nemotron-4-340b-reward answers so
    RESET = "reset"
    HANG = "hang"
    SLOW_DRIP = "slow_drip"  # a byte now and then, without end


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
    if fault is Fault.RETRY_AFTER:
        return replace(_too_many(request), headers={"retry-after": f"{retry_after:g}"})
    return _INSTEAD[fault](request) if fault in _INSTEAD else None


def bent(response: Response, fault: Fault) -> Response:
    """An answer as the fault spoils it."""
    return replace(response, body=_BENT[fault](content_of(response))) if fault in _BENT else response


def _error(message: str, code: str) -> dict[str, object]:
    return {"error": {"message": message, "type": code, "code": code}}


def _too_many(_: Request) -> Response:
    return Response(429, _error("Too many requests", "rate_limit_exceeded"))


def _unauthorized(request: Request) -> Response:
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    return Response(401, _error(f"Incorrect API key provided: {key}", "invalid_api_key"))


def _without_choices(content: bytes) -> bytes:
    return orjson.dumps({**orjson.loads(content), "choices": []})


def _with_message_lists(content: bytes) -> bytes:
    body = orjson.loads(content)
    choices = [{**choice, "message": [choice["message"]]} for choice in body["choices"]]
    return orjson.dumps({**body, "choices": choices})


_INSTEAD: Mapping[Fault, Callable[[Request], Response]] = {
    Fault.TOO_MANY_REQUESTS: _too_many,
    Fault.SERVER_ERROR: lambda _: Response(500, _error("The server had an error", "server_error")),
    Fault.BAD_GATEWAY: lambda _: Response(502, b"<html><h1>502 Bad Gateway</h1></html>", _HTML),
    Fault.WRONG_CONTENT_TYPE: lambda _: Response(200, b"<html><p>Sign in</p></html>", _HTML),
    Fault.UNAUTHORIZED: _unauthorized,
}
_BENT: Mapping[Fault, Callable[[bytes], bytes]] = {
    Fault.TRUNCATED_JSON: lambda content: content[: len(content) // 2],
    Fault.EMPTY_CHOICES: _without_choices,
    Fault.MESSAGE_AS_LIST: _with_message_lists,
}
