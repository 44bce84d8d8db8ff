"""A server that answers questions and ratings after a fixed latency, and counts what it was asked.

    python benchmarks/peers/server.py SECONDS [--choices]

With --choices it gives as many choices as `n` asks for, and else one. It prints its address. A GET of /counts gives the
counts since the last one.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import asdict, dataclass

from nat_dpo_pipeline.testing.server import LoopbackServer, Request, Response

_TEXT = "An answer of some length, as chat models write them. " * 12


@dataclass
class Counts:
    """`at_server` lasts from the first request to the last reply; `server_busy` is processor time. Both in seconds."""

    questions: int = 0
    ratings: int = 0
    most_at_once: int = 0
    at_server: float = 0.0
    server_busy: float = 0.0


class CountingServer:
    def __init__(self, latency: float, *, honours_n: bool) -> None:
        self._latency = latency
        self._honours_n = honours_n
        self._counts = Counts()
        self._at_once = 0
        self._first = 0.0
        self._busy_before = time.process_time()
        self._texts = 0

    async def answer(self, request: Request) -> Response:
        if request.method == "GET":
            return Response(body=self._taken())
        counts = self._counts
        self._first = self._first or time.monotonic()
        self._at_once += 1
        counts.most_at_once = max(counts.most_at_once, self._at_once)
        await asyncio.sleep(self._latency)
        response = Response(body=self._completion(request))
        self._at_once -= 1
        counts.at_server = time.monotonic() - self._first
        return response

    def _taken(self) -> dict[str, object]:
        self._counts.server_busy = time.process_time() - self._busy_before
        taken: dict[str, object] = asdict(self._counts)
        self._counts, self._first, self._busy_before = Counts(), 0.0, time.process_time()
        return taken

    def _completion(self, request: Request) -> dict[str, object]:
        body = request.json
        is_rating = b"impartial judge" in request.content
        self._counts.ratings += is_rating
        self._counts.questions += not is_rating
        choices = body.get("n", 1) if self._honours_n else 1
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": self._text(is_rating=is_rating)},
                    "finish_reason": "stop",
                }
                for index in range(choices)
            ],
            "usage": {"prompt_tokens": 300, "completion_tokens": 120, "total_tokens": 420},
        }

    def _text(self, *, is_rating: bool) -> str:
        # No two texts are equal: repeated responses would be asked for again by one of the tools and not by others.
        self._texts += 1
        if is_rating:
            return f'It is correct and a little long.\n{{"rating": {1 + self._texts % 10}}}'
        return f"{_TEXT}This is number {self._texts}."


async def _serve(latency: float, *, honours_n: bool) -> None:
    async with LoopbackServer(CountingServer(latency, honours_n=honours_n).answer) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("latency", type=float)
    parser.add_argument("--choices", action="store_true")
    options = parser.parse_args()
    asyncio.run(_serve(options.latency, honours_n=options.choices))
