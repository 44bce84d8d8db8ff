"""A server on this machine that speaks HTTP/1.1 as OpenAI's API does, and breaks it on purpose.

It is made of bare streams: it must cost little beside the client it serves, and send what no framework would.
"""

import asyncio
import inspect
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, repeat
from threading import Thread
from types import TracebackType
from typing import Self

from nat_dpo_pipeline.testing.faults import VALID, Fault, FaultPlan, after, at_random, bent, in_place_of_answer
from nat_dpo_pipeline.testing.messages import (
    Answer,
    Request,
    Response,
    asgi_answer,
    body_length,
    content_of,
    encoded,
    head_of,
)

__all__ = [
    "Answer",
    "Exchange",
    "Fault",
    "FaultPlan",
    "LoopbackServer",
    "Request",
    "Response",
    "after",
    "asgi_answer",
    "at_random",
    "serving",
]

_DRIP_SECONDS = 0.02
_ENDLESS = 10**9


@dataclass(frozen=True, slots=True)
class Exchange:
    """What became of a request. `status` is None when none was sent.

    `answered`: what the server's `answer` gave went out whole and fit to use, so that a caller would pay for it.
    """

    number: int
    path: str
    status: int | None
    fault: Fault | None
    answered: bool


class LoopbackServer:
    """Serves on a free port of 127.0.0.1 while its context is entered; see `serving` for a thread of its own.

    `latency` gives the seconds that a request waits, `retry_after` those that faults with a delay ask to wait. An
    exchange is on record, in `requests`, once the reply or what stands for it went out. An exception of `answer` is
    raised again on leaving the context.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        fault: FaultPlan | None = None,
        latency: Callable[[Request], float] | None = None,
        retry_after: float = 0.05,
    ) -> None:
        self.url = ""
        self.requests: list[Exchange] = []
        self.answered = 0
        self._answer = answer
        self._fault = fault
        self._latency = latency
        self._retry_after = retry_after
        self._received = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._broken: list[Exception] = []

    async def __aenter__(self) -> Self:
        # Hundreds of clients connect at once; those that the backlog cannot hold would come again after a second.
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=4096)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._server.wait_closed()
        if self._broken:
            raise self._broken[0]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        except asyncio.CancelledError:
            writer.transport.abort()  # the server is being closed
        except Exception as error:  # noqa: BLE001 - kept to be raised where the test can see it
            self._broken.append(error)
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            length = body_length(head)
            content = await reader.readexactly(length) if length else b""
            self._received += 1
            request = Request(self._received, head, content)
            fault = self._fault(request) if self._fault is not None else None
            if self._latency is not None:
                await asyncio.sleep(self._latency(request))
            if fault in (Fault.RESET, Fault.HANG):
                self._record(request, None, fault)
                await _fall_silent(fault, reader, writer)
                return
            await self._reply(request, fault, reader, writer)

    async def _reply(
        self, request: Request, fault: Fault | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        response = await self._response(request, fault)
        if reader.at_eof() or writer.is_closing():
            self._record(request, None, fault)
            writer.close()
            return
        # On record before it is sent: a client in another thread may look as soon as it has the reply.
        self._record(request, response.status, fault)
        if fault is Fault.SLOW_DRIP:
            await _drip(response, reader, writer)
        else:
            writer.write(encoded(response))
            await writer.drain()

    async def _response(self, request: Request, fault: Fault | None) -> Response:
        instead = in_place_of_answer(fault, request, self._retry_after) if fault is not None else None
        if instead is not None:
            return instead
        answer = self._answer(request)
        response = await answer if inspect.isawaitable(answer) else answer
        return response if fault is None else bent(response, fault)

    def _record(self, request: Request, status: int | None, fault: Fault | None) -> None:
        answered = status is not None and (fault is None or fault in VALID)
        self.answered += answered
        self.requests.append(Exchange(request.number, request.path, status, fault, answered))


@contextmanager
def serving(server: LoopbackServer) -> Iterator[str]:
    """Its address, while the server runs in a thread of its own: for tests that block or start processes."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        try:
            yield server.url
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _fall_silent(fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if fault is Fault.HANG:
        await reader.read(1)  # the client's end of file: it has given up
        return
    # Closing a socket that lingers for 0 s sends RST and not FIN (socket(7)).
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _drip(response: Response, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(head_of(response, _ENDLESS))
    for byte in chain(content_of(response), repeat(ord(" "))):
        if reader.at_eof():
            writer.close()
            return
        writer.write(bytes([byte]))
        await asyncio.sleep(_DRIP_SECONDS)
        await writer.drain()
