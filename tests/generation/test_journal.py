"""The journal, with real files, real processes and a real server."""

import asyncio
import gc
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, Route, counting_late
from nat_dpo_pipeline.generation.journal import Journal, RecordedModel, ReplayedModel
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.openai_model import ModelSettings, OpenAIChatModel
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.settings import Sampling
from nat_dpo_pipeline.testing import ScriptedModel
from nat_dpo_pipeline.testing.server import LoopbackServer, Response
from tests import own_time

QUESTION = Call((Message("user", "What does `heapq.nlargest` do?"),))
SECRET = "sk-planted-secret"


def demo_model(**settings: Any) -> OpenAIChatModel:
    chosen = {"model": "demo/stdlib-writer", "base_url": "http://demo.invalid/v1", "api_key": SECRET, **settings}
    return OpenAIChatModel(ModelSettings(name="writer", **chosen), create_app())


def recorded(journal: Journal, model: OpenAIChatModel) -> ReplayedModel:
    return ReplayedModel(RecordedModel(model, journal, model.identity), journal, model.identity)


def scripted(journal: Journal, model: ChatModel) -> ReplayedModel:
    def identity(call: Call) -> dict[str, object]:
        return {"messages": [message.content for message in call.messages], "sample": call.sample, "run": call.run}

    return ReplayedModel(RecordedModel(model, journal, identity), journal, identity)


class Slow:
    """Waits until it is told to go on; then answers, or raises what `answers` says."""

    name = "slow"

    def __init__(self, *answers: str | ModelError) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self._answers = answers

    async def complete(self, call: Call) -> ChatReply:
        answer = self._answers[min(self.calls, len(self._answers) - 1)]
        self.calls += 1
        await self.go.wait()
        return await ScriptedModel(lambda _: answer, self.name).complete(call)


# What is on record.


async def test_a_finished_call_is_replayed(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        first = await recorded(journal, demo_model()).complete(QUESTION)
    with closing(Journal(tmp_path / "journal")) as journal:
        again = await recorded(journal, demo_model()).complete(QUESTION)

    assert not first.replayed
    assert again.replayed
    assert (again.text, again.llm, again.model, again.usage) == (first.text, first.llm, first.model, first.usage)
    assert again.finish_reason == first.finish_reason


SCORED = Call((*QUESTION.messages, Message("assistant", "It finds the largest.")))


@pytest.mark.parametrize("route", [Route.POOLING, Route.CLASSIFY])
async def test_a_reply_of_another_route_is_replayed_with_its_body(
    tmp_path: Path, make_server: Callable[..., LoopbackServer], route: Route
) -> None:
    body = {"model": "m-1", "data": [{"data": [1.5], "probs": [0.5]}]}
    server = make_server(lambda _: Response(body=body))
    for replayed in (False, True):
        with closing(Journal(tmp_path / "journal")) as journal:
            model = OpenAIChatModel(ModelSettings("reward", "m", server.url, "key"))
            reply = await recorded(journal, model).complete(replace(SCORED, route=route))
            await model.aclose()
        assert reply.replayed is replayed
        assert (reply.body["data"], reply.model, reply.llm) == (body["data"], "m-1", "reward")
    assert server.answered == 1


@pytest.mark.parametrize(
    "other",
    [
        {"base_url": "http://elsewhere.invalid/v1"},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(seed=3)},
        {"sampling": Sampling(extra_body={"top_k": 1})},
    ],
)
async def test_another_endpoint_or_setting_is_another_call(tmp_path: Path, other: dict[str, Any]) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        await recorded(journal, demo_model()).complete(QUESTION)
        reply = await recorded(journal, demo_model(**other)).complete(QUESTION)

    assert not reply.replayed


@pytest.mark.parametrize(
    "other",
    [
        {"messages": (Message("user", "What does `heapq.nsmallest` do?"),)},
        {"messages": (Message("system", "Be brief."), *QUESTION.messages)},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(top_p=0.5)},
        {"sampling": Sampling(max_tokens=5)},
        {"sampling": Sampling(seed=3)},
        {"sampling": Sampling(extra_body={"top_k": 1})},
        {"sample": 1},
        {"run": 1},
    ],
)
async def test_another_message_parameter_sample_or_run_is_another_call(tmp_path: Path, other: dict[str, Any]) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        model = recorded(journal, demo_model())
        await model.complete(QUESTION)
        assert not (await model.complete(replace(QUESTION, **other))).replayed
        assert (await model.complete(replace(QUESTION, **other))).replayed


async def test_where_a_call_stands_and_whose_key_pays_for_it_make_no_difference(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        await recorded(journal, demo_model()).complete(QUESTION)
        reply = await recorded(journal, demo_model(api_key="another")).complete(replace(QUESTION, place=7))

    assert reply.replayed


async def test_a_failed_call_is_never_on_record(tmp_path: Path) -> None:
    model = ScriptedModel(lambda _: ModelError("overloaded") if len(model.calls) < 3 else "at last")
    with closing(Journal(tmp_path / "journal")) as journal:
        for _ in range(2):
            with pytest.raises(ModelError, match="overloaded"):
                await scripted(journal, model).complete(QUESTION)
        assert (await scripted(journal, model).complete(QUESTION)).text == "at last"
        assert (await scripted(journal, model).complete(QUESTION)).replayed
    assert len(model.calls) == 3


async def test_a_reply_that_was_given_up_and_yet_put_on_record_is_asked_for_again(tmp_path: Path) -> None:
    model = ScriptedModel(lambda _: "whole")
    with closing(Journal(tmp_path / "journal")) as journal:
        await scripted(journal, model).complete(QUESTION)
    _rewrite(tmp_path / "journal", {"choices": [{"finish_reason": "abort", "message": {"content": "ha"}}]})
    with closing(Journal(tmp_path / "journal")) as journal:
        again = await scripted(journal, model).complete(QUESTION)
        assert (again.text, again.replayed) == ("whole", False)
        assert (await scripted(journal, model).complete(QUESTION)).replayed
    assert len(model.calls) == 2


async def test_a_reply_on_record_is_read_anew(tmp_path: Path) -> None:
    model = ScriptedModel(lambda _: "<think>\nHm.\n</think>\n\nYes.")
    with closing(Journal(tmp_path / "journal")) as journal:
        await scripted(journal, model).complete(QUESTION)
        again = await scripted(journal, model).complete(QUESTION)
    assert (again.text, again.thoughts, again.replayed) == ("Yes.", "Hm.", True)


def _rewrite(path: Path, body: Mapping[str, object]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE replies SET body = ?", (json.dumps(body),))


def test_the_file_holds_neither_keys_nor_messages(tmp_path: Path) -> None:
    planted = (Message("system", "planted system text"), *QUESTION.messages)
    with closing(Journal(tmp_path / "journal")) as journal:
        asyncio.run(recorded(journal, demo_model()).complete(replace(QUESTION, messages=planted)))
        # While it is open, what was just written is in a file beside it.
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    content += b"".join(file.read_bytes() for file in tmp_path.iterdir())

    assert b"finish_reason" in content, "the reply is there"
    assert SECRET.encode() not in content
    assert b"planted system text" not in content
    assert b"demo.invalid" not in content


def test_the_runs_of_a_process_over_one_input_are_counted_for_each_file(tmp_path: Path) -> None:
    first, again, other = Journal(tmp_path / "one"), Journal(tmp_path / "x" / ".." / "one"), Journal(tmp_path / "two")
    assert [first.next_run("Tea"), first.next_run("Tea"), first.next_run("Coffee")] == [0, 1, 0]
    assert (again.next_run("Tea"), other.next_run("Tea")) == (2, 0)


# Calls under way.


@pytest.mark.own_time
async def test_equal_calls_at_the_same_time_are_made_once(tmp_path: Path) -> None:
    model = Slow("the answer")
    with closing(Journal(tmp_path / "journal")) as journal:
        asked = scripted(journal, model)
        calls = [asyncio.create_task(asked.complete(QUESTION)) for _ in range(5)]
        other = asyncio.create_task(asked.complete(replace(QUESTION, sample=1)))
        await own_time.until_nothing_moves()
        model.go.set()
        replies = await asyncio.gather(*calls, other)

    assert model.calls == 2
    assert [reply.text for reply in replies] == ["the answer"] * 6
    assert [reply.replayed for reply in replies] == [False, True, True, True, True, False]


@pytest.mark.own_time
async def test_an_equal_call_is_made_when_the_first_one_failed(tmp_path: Path) -> None:
    model = Slow(ModelError("overloaded"), "the answer")
    with closing(Journal(tmp_path / "journal")) as journal:
        calls = [asyncio.create_task(scripted(journal, model).complete(QUESTION)) for _ in range(3)]
        await own_time.until_nothing_moves()
        model.go.set()
        first, *others = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(first, ModelError)
    assert [other.text for other in others if isinstance(other, ChatReply)] == ["the answer"] * 2
    assert model.calls == 2


async def _cancelled(call: "asyncio.Task[ChatReply]") -> None:
    await own_time.until_nothing_moves()
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call


@pytest.mark.own_time
async def test_a_call_whose_caller_was_cancelled_is_still_put_on_record(tmp_path: Path) -> None:
    model = Slow("paid for")
    late: list[ChatReply | ModelError] = []
    with closing(Journal(tmp_path / "journal")) as journal:
        with counting_late(late.append):
            await _cancelled(asyncio.create_task(scripted(journal, model).complete(QUESTION)))
        finishing = asyncio.create_task(journal.finish(10))
        await own_time.until_nothing_moves()
        assert not finishing.done()
        model.go.set()
        await finishing
    assert [one.text for one in late if isinstance(one, ChatReply)] == ["paid for"]
    with closing(Journal(tmp_path / "journal")) as journal:
        again = await scripted(journal, model).complete(QUESTION)

    assert (again.text, again.replayed, model.calls) == ("paid for", True, 1)


@pytest.mark.own_time
async def test_a_call_that_takes_too_long_to_finish_is_given_up(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    late: list[ChatReply | ModelError] = []
    with closing(Journal(tmp_path / "journal")) as journal:
        with counting_late(late.append):
            await _cancelled(asyncio.create_task(scripted(journal, Slow("too late")).complete(QUESTION)))
        await asyncio.wait_for(journal.finish(0.01), 10)
        assert asyncio.all_tasks() == before
        await journal.finish(0.01)  # nothing is left to wait for
    assert [(one.llm, one.requests) for one in late if isinstance(one, ModelError)] == [("slow", 1)]


@pytest.mark.own_time
async def test_a_call_that_fails_after_its_caller_was_cancelled_disturbs_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Slow(ModelError("overloaded"))
    late: list[ChatReply | ModelError] = []
    with closing(Journal(tmp_path / "journal")) as journal:
        with counting_late(late.append):
            await _cancelled(asyncio.create_task(scripted(journal, model).complete(QUESTION)))
        model.go.set()
        await journal.finish(10)
        gc.collect()
    assert [(str(one), one.llm, one.requests) for one in late if isinstance(one, ModelError)] == [
        ("overloaded", "slow", 1)
    ]
    assert caplog.records == []  # asyncio logs exceptions that nobody looked at


@pytest.mark.own_time
async def test_replays_do_not_wait_for_the_limits_of_their_model(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        model = demo_model()
        limited = LimitedModel(RecordedModel(model, journal, model.identity), Limits(requests_per_minute=1))
        asked = ReplayedModel(limited, journal, model.identity)
        first = await asked.complete(QUESTION)
        # The next request would have to wait for a minute.
        replies = [await asyncio.wait_for(asked.complete(QUESTION), 5) for _ in range(20)]

    assert not first.replayed
    assert all(reply.replayed for reply in replies)


async def test_models_on_record_have_the_name_of_their_model(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert recorded(journal, demo_model()).name == "writer"
    assert RecordedModel(demo_model(), journal, lambda _: {}).name == "writer"
    assert not (tmp_path / "journal").exists(), "it is opened at its first use"


# Files that cannot be used.


@pytest.mark.runs
def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with closing(Journal(path)) as journal:
        journal.add((b"key", {}))
        script = (
            "import sys; from pathlib import Path; from nat_dpo_pipeline.generation.journal import Journal;"
            "Journal(Path(sys.argv[1])).find(b'key')"
        )
        second = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)

    assert second.returncode != 0
    assert f"the journal {str(path)!r} is in use by another process" in second.stderr


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("something else entirely, long enough to be taken for a database header " * 20, encoding="utf-8")

    with pytest.raises(ConfigurationError, match="cannot be used"):
        Journal(path).find(b"key")


def test_a_database_of_another_kind_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "journal")) as database, database:
        database.execute("CREATE TABLE replies (something TEXT)")

    with closing(Journal(tmp_path / "journal")) as journal, pytest.raises(ConfigurationError, match="cannot be used"):
        journal.find(b"key")


def test_a_reply_that_is_damaged_on_disk_is_refused(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        journal.add((b"key", {"choices": []}))
    with closing(sqlite3.connect(tmp_path / "journal")) as database, database:
        database.execute("UPDATE replies SET body = substr(body, 1, 5)")

    with closing(Journal(tmp_path / "journal")) as journal, pytest.raises(ConfigurationError, match="cannot be used"):
        journal.find(b"key")


def test_a_full_disk_is_no_reason_to_remove_the_journal(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal")) as journal:
        journal.add((b"key", {}))
        journal._opened().execute("PRAGMA max_page_count = 3")  # noqa: SLF001 - a disk without room for more
        with pytest.raises(ConfigurationError, match="free some space, and keep it"):
            journal.add((b"other", {"text": "x" * 100_000}))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Journal(tmp_path / "file" / "journal").add((b"key", {}))


def test_a_journal_is_made_with_its_folder(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "deep" / "journal")) as journal:
        assert journal.find(b"key") is None
        journal.add((b"key", {"choices": []}))
        assert journal.find(b"key") == {"choices": []}
