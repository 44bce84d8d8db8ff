"""The server, spoken to over bare sockets: what a client makes of it is for the tests of clients."""

import asyncio
import json
import socket
import urllib.request
from math import inf
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest

from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.testing.faults import VALID
from nat_dpo_pipeline.testing.models import completion
from nat_dpo_pipeline.testing.server import (
    Exchange,
    Fault,
    LoopbackServer,
    Request,
    Response,
    after,
    asgi_answer,
    serving,
)
from tests.waiting import until, wait_until

PATH = "/v1/chat/completions"
BODY = completion("hello")


def _echo(request: Request) -> Response:
    return Response(body={"number": request.number, "asked": request.json})


def _fine(_: Request) -> Response:
    return Response(body=BODY)


async def _opened(server: LoopbackServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", urlsplit(server.url).port)


def _sent(content: bytes) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nAuthorization: Bearer sk-1\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def _received(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split()[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head, await reader.readexactly(length)


async def _asked(server: LoopbackServer, content: bytes = b"{}") -> tuple[bytes, bytes]:
    reader, writer = await _opened(server)
    try:
        writer.write(_sent(content))
        return await _received(reader)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_requests_of_one_connection_are_answered_one_after_the_other() -> None:
    async with LoopbackServer(_echo) as server:
        reader, writer = await _opened(server)
        for number in (1, 2, 3):
            writer.write(_sent(b'{"n": %d}' % number))
            _, content = await _received(reader)
            assert json.loads(content) == {"number": number, "asked": {"n": number}}
        writer.close()
    assert server.answered == 3
    assert server.requests == [Exchange(number, PATH, 200, None, answered=True) for number in (1, 2, 3)]


async def test_a_request_in_pieces_is_put_together() -> None:
    content = json.dumps({"text": "x" * 200_000}).encode()
    async with LoopbackServer(_echo) as server:
        reader, writer = await _opened(server)
        whole = _sent(content)
        for piece in (whole[:10], whole[10:60], whole[60:]):
            writer.write(piece)
            await asyncio.sleep(0.01)
        _, answer = await _received(reader)
        writer.close()
    assert json.loads(answer)["asked"] == json.loads(content)


async def test_latency_is_waited_for_by_each_request_alone() -> None:
    numbers: list[int] = []

    def latency(request: Request) -> float:
        numbers.append(request.number)
        return inf if request.number == 1 else 0.01

    async with LoopbackServer(_fine, latency=latency) as server:
        held = asyncio.create_task(_asked(server))
        await until(lambda: numbers)
        await asyncio.gather(*(_asked(server) for _ in range(50)))
        held.cancel()
    assert server.answered == 50


async def test_an_answer_may_be_awaited() -> None:
    async def answer(_: Request) -> Response:
        await asyncio.sleep(0)
        return Response(418, {"tea": "pot"})

    async with LoopbackServer(answer) as server:
        head, content = await _asked(server)
    assert head.startswith(b"HTTP/1.1 418 ")
    assert content == b'{"tea":"pot"}'


async def test_an_error_in_the_answer_is_raised_where_the_test_sees_it() -> None:
    def answer(_: Request) -> Response:
        raise KeyError("a bug of the test")

    server = LoopbackServer(answer)
    await server.__aenter__()
    with pytest.raises(asyncio.IncompleteReadError):
        await _asked(server)
    with pytest.raises(KeyError, match="a bug"):
        await server.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("fault", "status", "told"),
    [
        (Fault.TOO_MANY_REQUESTS, 429, b"Too many requests"),
        (Fault.RETRY_AFTER, 429, b"retry-after: 1.5\r\n"),
        (Fault.RETRY_AFTER_MS, 429, b"retry-after-ms: 1500\r\n"),
        (Fault.RETRY_AFTER_OF_PROVIDER, 429, b"llm_provider-retry-after: 1.5\r\n"),
        (Fault.RETRY_IN_BODY, 429, b"Please retry in 1.5s."),
        (Fault.BUSY, 503, b"retry-after: 1.5\r\n"),
        (Fault.PLAIN_SERVER_ERROR, 500, b"content-type: text/plain\r\n"),
        (Fault.ERROR_AS_ANSWER, 200, b"server_is_overloaded"),
        (Fault.SERVER_ERROR, 500, b"server_error"),
        (Fault.BAD_GATEWAY, 502, b"content-type: text/html\r\n"),
        (Fault.UNAUTHORIZED, 401, b"Incorrect API key provided: sk-1"),
        (Fault.WRONG_CONTENT_TYPE, 200, b"content-type: text/html\r\n"),
    ],
)
async def test_a_fault_with_a_reply_of_its_own_never_asks_for_the_answer(
    fault: Fault, status: int, told: bytes
) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        return Response(body=BODY)

    async with LoopbackServer(answer, fault=lambda _: fault, retry_after=1.5) as server:
        head, content = await _asked(server)
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert told in head + content
    assert (b"retry-after" in head) is (b"retry-after" in told)
    assert asked == []
    assert server.requests == [Exchange(1, PATH, status, fault, answered=False)]


@pytest.mark.parametrize(
    "fault",
    [
        Fault.TRUNCATED_JSON,
        Fault.EMPTY_CHOICES,
        Fault.NULL_CHOICES,
        Fault.GIVEN_UP,
        Fault.ABORTED,
        Fault.CONTENT_IN_PARTS,
        Fault.MESSAGE_AS_LIST,
    ],
)
async def test_a_fault_in_the_answer_changes_it(fault: Fault) -> None:
    async with LoopbackServer(_fine, fault=lambda _: fault) as server:
        _, content = await _asked(server)
    if fault is Fault.TRUNCATED_JSON:
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            json.loads(content)
    else:
        choice = BODY["choices"][0]  # type: ignore[index]
        message = choice["message"]
        half = {**message, "content": "he"}
        parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
        expected = {
            Fault.EMPTY_CHOICES: [],
            Fault.NULL_CHOICES: None,
            Fault.GIVEN_UP: [{**choice, "message": half, "finish_reason": "error"}],
            Fault.ABORTED: [{**choice, "message": half, "finish_reason": "abort"}],
            Fault.CONTENT_IN_PARTS: [{**choice, "message": {**message, "content": parts}}],
            Fault.MESSAGE_AS_LIST: [{**choice, "message": [message]}],
        }[fault]
        assert json.loads(content) == {**BODY, "choices": expected}
    assert server.answered == (fault in VALID)


async def test_a_reset_is_one_and_not_an_orderly_end() -> None:
    async with LoopbackServer(_fine, fault=lambda _: Fault.RESET) as server:
        reader, writer = await _opened(server)
        writer.write(_sent(b"{}"))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    assert server.requests == [Exchange(1, PATH, None, Fault.RESET, answered=False)]


async def test_a_hanging_request_gets_not_a_byte() -> None:
    async with LoopbackServer(_fine, fault=lambda _: Fault.HANG) as server:
        reader, writer = await _opened(server)
        writer.write(_sent(b"{}"))
        await until(lambda: server.requests)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        writer.close()
    assert server.requests == [Exchange(1, PATH, None, Fault.HANG, answered=False)]


async def test_a_slow_reply_starts_as_the_answer_and_never_ends() -> None:
    async with LoopbackServer(_fine, fault=lambda _: Fault.SLOW_DRIP) as server:
        reader, writer = await _opened(server)
        writer.write(_sent(b"{}"))
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(5) == json.dumps(BODY, separators=(",", ":")).encode()[:5]
        assert not reader.at_eof()
        writer.close()
    assert server.requests == [Exchange(1, PATH, 200, Fault.SLOW_DRIP, answered=False)]


@pytest.mark.parametrize("abruptly", [True, False])
async def test_what_nobody_waits_for_any_more_is_not_answered(abruptly: bool) -> None:
    arrived, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        if request.number == 1:
            arrived.set()
            await may_answer.wait()
        return Response(body=BODY)

    async with LoopbackServer(answer) as server:
        _, writer = await _opened(server)
        writer.write(_sent(b"{}"))
        await arrived.wait()
        writer.transport.abort() if abruptly else writer.close()
        await _asked(server)  # until then the server has seen that the other one is gone
        may_answer.set()
        await until(lambda: len(server.requests) == 2)
    assert server.answered == 1
    assert server.requests[-1] == Exchange(1, PATH, None, None, answered=False)


def test_a_server_in_a_thread_answers_code_that_blocks() -> None:
    server = LoopbackServer(asgi_answer(create_app(seed=1)), fault=after(2, Fault.UNAUTHORIZED))
    with serving(server) as url:
        with urllib.request.urlopen(f"{url}/models") as reply:
            assert {model["id"] for model in json.load(reply)["data"]} == {"demo/stdlib-writer", "demo/stdlib-reward"}
        assert server.answered == 1
        asked = {
            "model": "demo/stdlib-writer",
            "messages": [{"role": "user", "content": "What does `heapq.nlargest` do?"}],
        }
        with urllib.request.urlopen(f"{url}/chat/completions", json.dumps(asked).encode()) as reply:
            assert json.load(reply)["choices"][0]["message"]["content"]
        with pytest.raises(HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{url}/models")
        refused.value.close()
    assert (server.answered, [exchange.status for exchange in server.requests]) == (2, [200, 200, 401])


def test_a_server_in_a_thread_is_gone_afterwards_also_with_a_hanging_client() -> None:
    server = LoopbackServer(_fine, fault=lambda _: Fault.HANG)
    with serving(server) as url:
        address = ("127.0.0.1", urlsplit(url).port or 0)
        client = socket.create_connection(address)
        client.sendall(_sent(b"{}"))
        wait_until(lambda: server.requests)
    with client:
        assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_an_error_in_a_thread_is_raised_when_the_server_stops() -> None:
    def answer(_: Request) -> Response:
        raise KeyError("a bug of the test")

    with (
        pytest.raises(KeyError, match="a bug"),
        serving(LoopbackServer(answer)) as url,
        pytest.raises(OSError, match="closed"),
    ):
        urllib.request.urlopen(f"{url}/models")
