"""Runs of `nat dpo generate` over the demo model on a server of this machine, and what they leave."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.testing.server import Answer, LoopbackServer, Request, Response, asgi_answer, serving
from tests.waiting import until

ROOT = Path(__file__).parents[1]
GENERATE = ("dpo", "generate", "--config_file")
#: Logged at the first interruption.
WAITS = "waiting for the calls under way"
_RESULTS = ("candidates.jsonl", "dataset/trl/train.jsonl", "dataset/trl/validation.jsonl")


class Served:
    """The demo model over HTTP, slowly. Calls from number `held_from` on are not answered until they are released."""

    def __init__(self, answer: Answer | None = None, seconds: float = 0.1) -> None:
        self.server = LoopbackServer(self._held)
        self.received = 0
        self.held_from = sys.maxsize
        self._answer = answer or asgi_answer(create_app())
        self.seconds = seconds

    @property
    def answered(self) -> int:
        return self.server.answered

    @property
    def url(self) -> str:
        return self.server.url

    def release(self) -> None:
        self.held_from = sys.maxsize

    async def _held(self, request: Request) -> Response:
        self.received = request.number
        await asyncio.sleep(self.seconds)
        await until(lambda: request.number < self.held_from)
        response = self._answer(request)
        return response if isinstance(response, Response) else await response


@contextmanager
def served(answer: Answer | None = None, seconds: float = 0.1) -> Iterator[Served]:
    model = Served(answer, seconds)
    with serving(model.server):
        yield model


def served_config(folder: Path, url: str, **workflow: object) -> tuple[str, ...]:
    """Write the demo over HTTP, smaller; give the arguments of the command that runs it."""
    source = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    for entry in source["llms"].values():
        entry |= {"_type": "openai", "base_url": url}
    source["workflow"] |= {"n_subtopics": 3, "n_questions": 3, "n_responses": 3, "max_concurrency": 4, **workflow}
    (folder / "served.yml").write_text(yaml.safe_dump(source))
    return (*GENERATE, "served.yml")


def manifest(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "manifest.json").read_bytes())
    return content


def results(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in _RESULTS}
