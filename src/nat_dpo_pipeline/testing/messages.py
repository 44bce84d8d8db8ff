"""Requests and responses of the loopback server, as values."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http.client import responses as _reasons
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `number` counts those of a server from 1, and `head` is its request line with the headers."""

    number: int
    head: bytes
    content: bytes

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode("ascii")

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode("ascii")

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def json(self) -> Any:
        return orjson.loads(self.content)


@dataclass(frozen=True, slots=True)
class Response:
    """What to send; a mapping goes out as JSON, which is also the content type unless the headers say another."""

    status: int = 200
    body: bytes | Mapping[str, object] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Request], Response | Awaitable[Response]]


def asgi_answer(app: "ASGIApp") -> Answer:
    """What an ASGI app answers, for instance that of `nat_dpo_pipeline.demo.create_app()`."""

    async def answer(request: Request) -> Response:
        sent: list[Message] = []

        async def receive() -> "Message":
            return {"type": "http.request", "body": request.content}

        async def send(message: "Message") -> None:
            sent.append(message)

        await app(_scope(request), receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Response(sent[0]["status"], b"".join(message.get("body", b"") for message in sent), headers)

    return answer


def _scope(request: Request) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.items()],
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 0),
    }


def body_length(head: bytes) -> int:
    """How many bytes of content follow the head of a request."""
    stated = _LENGTH.search(head)
    return int(stated[1]) if stated else 0


def encoded(response: Response) -> bytes:
    body = content_of(response)
    return head_of(response, len(body)) + body


def content_of(response: Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else orjson.dumps(response.body)


def head_of(response: Response, length: int) -> bytes:
    own = {name.lower(): value for name, value in response.headers.items()}
    headers = {"content-type": "application/json", **own, "content-length": str(length)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} {_reasons.get(response.status, '')}\r\n{lines}\r\n".encode("latin-1")
