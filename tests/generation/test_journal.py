"""The journal, with real files, real processes and a real server."""

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.journal import Journal, JournalledModel

QUESTION = [Message("user", "What does `heapq.nlargest` do?")]
SECRET = "sk-planted-secret"

# Runs the recipe against the server and writes what it collected; it is killed again and again.
WORKER = """
import asyncio, json, sys
from contextlib import closing
from pathlib import Path
from nat_dpo_pipeline.core.rewards import weights_named
from nat_dpo_pipeline.generation.chat import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.journal import Journal, JournalledModel
from nat_dpo_pipeline.generation.preference import PreferenceRecipe, read_request
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode

async def main(base_url, journal_path, output):
    with closing(Journal(Path(journal_path))) as journal:
        def model(name):
            settings = ModelSettings(name, "demo/stdlib-" + name, base_url, "key")
            model = OpenAIChatModel(settings)
            return JournalledModel(model, journal, model.identity)
        recipe = PreferenceRecipe(
            writer=model("writer"), responder=model("writer"),
            scorer=RewardModelScorer(model("reward"), weights_named("helpfulness")),
            settings=RecipeSettings(
                n_subtopics=3, n_questions=4, n_responses=3, responses=ResponseMode.INDEPENDENT, seed=5
            ),
            max_concurrency=4,
        )
        found = []
        async for turn in recipe.turns(read_request("Data structures"), GenerationRecord()):
            found += [[c.turn_id, c.candidate_index, c.response, c.score] for c in turn]
    Path(output).write_text(json.dumps(found))

asyncio.run(main(*sys.argv[1:]))
"""


class CountingApp:
    """The demo model, a little slow, with its answered chat completions counted."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.answered = 0
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(self._seconds)
            self.answered += 1
        await self._app(scope, receive, send)


@pytest.fixture
def counting_app() -> CountingApp:
    return CountingApp(create_app(seed=1), seconds=0.03)


@pytest.fixture
def base_url(counting_app: CountingApp) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(counting_app, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()


def demo_model(**settings: Any) -> OpenAIChatModel:
    chosen = {"base_url": "http://demo.invalid/v1", "api_key": SECRET, "max_retries": 0, **settings}
    return OpenAIChatModel(ModelSettings("writer", "demo/stdlib-writer", **chosen), create_app())


def journalled(journal: Journal, **settings: Any) -> JournalledModel:
    model = demo_model(**settings)
    return JournalledModel(model, journal, model.identity)


def restarted(journal: Path) -> Journal:
    """A journal as another process would see it."""
    moved = journal.rename(journal.with_name(f"{journal.name}-moved"))
    return Journal(moved)


async def test_a_finished_call_is_replayed_by_the_next_process(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        first = await journalled(journal).complete(QUESTION)
    with closing(restarted(tmp_path / "journal")) as journal:
        again = await journalled(journal).complete(QUESTION)

    assert not first.replayed
    assert again.replayed
    assert (again.text, again.model, again.usage) == (first.text, first.model, first.usage)


async def test_the_same_process_never_gets_one_reply_twice(tmp_path: Path) -> None:
    for _ in range(2):
        with closing(Journal(tmp_path / "journal")) as journal:
            reply = await journalled(journal).complete(QUESTION)
            assert not reply.replayed


@pytest.mark.parametrize("other", [{"temperature": 0.5}, {"base_url": "http://elsewhere.invalid/v1"}, {"seed": 3}])
async def test_another_parameter_or_endpoint_is_another_call(tmp_path: Path, other: dict[str, Any]) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        await journalled(journal).complete(QUESTION)
    with closing(restarted(tmp_path / "journal")) as journal:
        reply = await journalled(journal, **other).complete(QUESTION)

    assert not reply.replayed


async def test_a_failed_call_is_asked_again(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal, pytest.raises(ModelError):
        await journalled(journal).complete([Message("user", "Tell me a joke.")])
    with closing(restarted(tmp_path / "journal")) as journal, pytest.raises(ModelError):
        await journalled(journal).complete([Message("user", "Tell me a joke.")])


def test_the_file_holds_neither_keys_nor_messages(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        model = journalled(journal)
        asyncio.run(model.complete([Message("system", "planted system text"), *QUESTION]))

    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert SECRET.encode() not in content
    assert b"planted system text" not in content


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with closing(Journal(path)) as journal:
        journal.add(b"key", 0, {})
        script = (
            "import sys; from pathlib import Path; from nat_dpo_pipeline.generation.journal import Journal;"
            "Journal(Path(sys.argv[1])).find(b'key', 0)"
        )
        second = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)

    assert second.returncode != 0
    assert f"the journal {str(path)!r} is in use by another process" in second.stderr


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("something else entirely, long enough to be taken for a database header " * 20, encoding="utf-8")

    with pytest.raises(ConfigurationError, match="cannot be used"):
        Journal(path).find(b"key", 0)


def test_killed_at_any_moment_the_run_goes_on_and_pays_for_no_finished_call_twice(
    tmp_path: Path, base_url: str, counting_app: CountingApp
) -> None:
    def worker(name: str) -> list[str]:
        return [sys.executable, "-c", WORKER, base_url, str(tmp_path / f"{name}.journal"), str(tmp_path / name)]

    subprocess.run(worker("undisturbed"), check=True)
    calls = counting_app.answered
    counting_app.answered = 0

    draw = random.Random(11)
    kills = 0
    while not (tmp_path / "killed").exists():
        process = subprocess.Popen(worker("killed"))
        before = counting_app.answered
        while process.poll() is None and counting_app.answered < before + draw.randint(1, 25):
            time.sleep(0.005)
        kills += process.poll() is None
        process.kill() if kills <= 20 else process.wait()
        process.wait()

    assert kills > 3
    # What a killed process had under way, at most its four slots, was answered to nobody.
    assert counting_app.answered <= calls + 4 * kills
    assert json.loads((tmp_path / "killed").read_text()) == json.loads((tmp_path / "undisturbed").read_text())


def test_a_database_of_another_kind_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "journal")) as database, database:
        database.execute("CREATE TABLE calls (something TEXT)")

    with closing(Journal(tmp_path / "journal")) as journal, pytest.raises(ConfigurationError, match="cannot be used"):
        journal.find(b"key", 0)
