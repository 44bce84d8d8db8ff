import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, register_function

from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.errors import ConfigurationError, OutputError
from nat_dpo_pipeline.generation.record import FailureReason, GenerationRecord
from nat_dpo_pipeline.plugin.commands.generation import (
    Outcome,
    RunStatus,
    generate,
    inputs_of,
    load,
    preview,
    previewed,
)
from nat_dpo_pipeline.testing.server import (
    Answer,
    Fault,
    LoopbackServer,
    Request,
    Response,
    after,
    asgi_answer,
    at_random,
)
from tests.waiting import until

ROOT = Path(__file__).parents[3]
HEAPS = "What does `heapq.nlargest` do?"
LISTS = "What does `bisect.bisect_left` do?"
Change = Callable[[dict[str, Any]], object]


class BrokenConfig(FunctionBaseConfig, name="broken_for_tests"):
    """A component of somebody else that cannot be built."""


class ScoreConfig(FunctionBaseConfig, name="score_for_tests"):
    """A function that scores."""


@register_function(config_type=BrokenConfig)  # type: ignore[untyped-decorator]  # NAT's has no return type
async def broken(_: BrokenConfig, __: Builder) -> AsyncIterator[FunctionInfo]:
    yield FunctionInfo.from_fn(_missing(), description="")


def _missing() -> Any:
    raise RuntimeError("its file\nis missing")


@register_function(config_type=ScoreConfig)  # type: ignore[untyped-decorator]
async def score(_: ScoreConfig, __: Builder) -> AsyncIterator[FunctionInfo]:
    async def run(prompt: list[dict[str, str]], response: str) -> float:
        return float(len(response) + len(prompt))

    yield FunctionInfo.from_fn(run, description="Longer is better.")


def _write_config(folder: Path, change: Change = lambda _: None, url: str | None = None) -> Path:
    source = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    source["workflow"] |= {"n_subtopics": 2, "n_questions": 2, "n_responses": 2}
    if url is not None:
        for entry in source["llms"].values():
            entry |= {"_type": "openai", "base_url": url}
    change(source)
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(source))
    return path


async def _run(
    folder: Path,
    texts: Sequence[str] = ("Data structures",),
    *,
    change: Change = lambda _: None,
    url: str | None = None,
    watch: Callable[[GenerationRecord], Any] = nullcontext,
) -> Outcome:
    config, workflow = load(_write_config(folder, change, url))
    return await generate(config, workflow, inputs_of(config, texts, None), folder / "run", watch)


def _rows(folder: Path, name: str = "candidates.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / name).read_text().splitlines()]


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "run" / "manifest.json").read_bytes())
    return manifest


async def test_a_run_leaves_candidates_pairs_and_a_manifest(tmp_path: Path) -> None:
    outcome = await _run(tmp_path)
    assert (outcome.status, outcome.error, outcome.first_failure) == (RunStatus.COMPLETE, None, None)
    assert outcome.record.counts["candidates"] == 8
    assert len(_rows(tmp_path)) == 4
    assert outcome.dataset is not None
    assert sum(file.rows for file in outcome.dataset.files) == len(
        _rows(tmp_path, "dataset/trl/train.jsonl") + _rows(tmp_path, "dataset/trl/validation.jsonl")
    )
    assert _manifest(tmp_path)["counts"]["candidates"] == 8
    assert _manifest(tmp_path)["configuration"]["llms"]["writer"]["model_name"] == "demo/stdlib-writer"


async def test_equal_inputs_are_asked_apart_and_replayed_apart(tmp_path: Path) -> None:
    first = await _run(tmp_path, (HEAPS, HEAPS))
    answers = first.record.usage["responses", "writer"]
    assert (answers.requests, answers.replayed) == (4, 0)
    # Scores of equal texts are equal, and asked for once.
    made = sum(used.requests + used.replayed for used in first.record.usage.values())
    again = await _run(tmp_path, (HEAPS, HEAPS))
    assert sum(used.requests for used in again.record.usage.values()) == 0
    assert sum(used.replayed for used in again.record.usage.values()) == made
    assert [row["example_id"] for row in _rows(tmp_path)] == ["input-1", "input-2"]


async def test_a_malformed_input_is_a_failure_and_costs_no_other(tmp_path: Path) -> None:
    outcome = await _run(tmp_path, ("{}", HEAPS))
    assert outcome.status is RunStatus.COMPLETE
    assert outcome.record.skips() == {"input": {"malformed_input": 1}}
    (failure,) = _rows(tmp_path, "failures.jsonl")
    assert failure["detail"].startswith("input-1: ")
    assert outcome.first_failure is None


async def test_the_record_is_watched_while_the_run_goes_on(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    @contextmanager
    def watch(record: GenerationRecord) -> Iterator[None]:
        seen.append(("begin", record.counts["candidates"]))
        yield
        seen.append(("end", record.counts["candidates"]))

    await _run(tmp_path, watch=watch)
    assert seen == [("begin", 0), ("end", 8)]


async def test_a_function_can_score(tmp_path: Path) -> None:
    def change(source: dict[str, Any]) -> None:
        source["functions"] = {"longer": {"_type": "score_for_tests"}}
        del source["workflow"]["reward_llm"]
        source["workflow"]["scorer"] = {"kind": "function", "function": "longer"}

    outcome = await _run(tmp_path, (HEAPS,), change=change)
    (row,) = _rows(tmp_path)
    assert outcome.record.counts["candidates"] == 2
    assert all(one["score"] == len(one["response"]) + 1 for one in row["candidates"])


async def test_a_function_that_is_not_there_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    def change(source: dict[str, Any]) -> None:
        del source["workflow"]["reward_llm"]
        source["workflow"]["scorer"] = {"kind": "function", "function": "longer"}

    with pytest.raises(ConfigurationError, match="names the function 'longer', which is not under functions:"):
        await _run(tmp_path, (HEAPS,), change=change)
    assert not (tmp_path / "candidates.jsonl").exists()


async def test_a_component_that_nat_cannot_build_is_named_without_noise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(source: dict[str, Any]) -> None:
        source["functions"] = {"mine": {"_type": "broken_for_tests"}}

    with pytest.raises(ConfigurationError, match=r"functions\.mine cannot be built: its file is missing"):
        await _run(tmp_path, change=change)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert not (tmp_path / "run").exists()


def _cut(count: int) -> Answer:
    demo = asgi_answer(create_app())

    async def answer(request: Request) -> Response:
        if request.number > count:
            return Response(402, {"error": {"message": "the credit is used up", "code": "spent"}})
        found = demo(request)
        assert not isinstance(found, Response)
        return await found

    return answer


async def test_a_model_that_ends_stops_the_run_and_the_rest_is_kept(tmp_path: Path) -> None:
    async with LoopbackServer(_cut(14)) as server:
        outcome = await _run(tmp_path, (HEAPS, LISTS, "Text", "Dates and times"), url=server.url)
    assert outcome.status is RunStatus.STOPPED
    assert outcome.error is None
    assert outcome.record.stopped is not None
    assert "answered 402: the credit is used up" in outcome.record.stopped
    assert _manifest(tmp_path)["status"] == "stopped"
    assert _manifest(tmp_path)["message"] == outcome.record.stopped
    assert outcome.record.counts["candidates"] > 0
    # It is told once, however many calls it ends.
    told = [row for row in _rows(tmp_path, "failures.jsonl") if row["detail"] == outcome.record.stopped]
    assert len(told) == 1


async def test_what_was_kept_is_not_asked_for_again_when_the_credit_is_back(tmp_path: Path) -> None:
    url = ""

    async with LoopbackServer(_cut(14)) as server:
        url = server.url
        await _run(tmp_path, (HEAPS, LISTS, "Text"), url=url)
        paid = server.answered
        server._answer = asgi_answer(create_app())  # noqa: SLF001 - the same address, with credit again
        outcome = await _run(tmp_path, (HEAPS, LISTS, "Text"), url=url)
        assert outcome.status is RunStatus.COMPLETE
        replayed = sum(used.replayed for used in outcome.record.usage.values())
        sent = sum(used.requests for used in outcome.record.usage.values())
        assert replayed >= 14
        assert server.answered == paid + sent


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (Response(400, {"error": {"message": "Unsupported parameter", "param": "seed"}}), RunStatus.EMPTY),
        (Response(413, {"error": {"message": "too long"}}), RunStatus.EMPTY),
        (Response(402, {"error": {"message": "no credit"}}), RunStatus.STOPPED),
        (Response(403, {"error": {"message": "Forbidden"}}), RunStatus.STOPPED),
        (Response(422, {"error": {"message": "Budget has been exceeded!"}}), RunStatus.STOPPED),
    ],
)
async def test_a_run_of_nothing_is_not_complete(tmp_path: Path, refused: Response, status: RunStatus) -> None:
    async with LoopbackServer(lambda _: refused) as server:
        outcome = await _run(tmp_path, (HEAPS,), url=server.url)
        sent = sum(used.requests for used in outcome.record.usage.values())
        assert sent == len(server.requests)
    assert outcome.status is status
    assert _manifest(tmp_path)["status"] == status


async def test_a_run_that_lost_a_row_to_a_spent_budget_is_not_complete(tmp_path: Path) -> None:
    demo = asgi_answer(create_app())

    async def answer(request: Request) -> Response:
        if "bisect" in request.json["messages"][0]["content"]:
            return Response(402, {"error": {"message": "You requested up to 200 tokens, but can only afford 150"}})
        found = demo(request)
        assert not isinstance(found, Response)
        return await found

    async with LoopbackServer(answer) as server:
        outcome = await _run(tmp_path, (HEAPS, LISTS), url=server.url)
    assert outcome.status is RunStatus.INCOMPLETE
    assert outcome.record.counts["candidates"] > 0


async def test_one_forbidden_question_fails_and_the_others_go_on_each_time(tmp_path: Path) -> None:
    demo = asgi_answer(create_app())
    flagged = "The chosen model requires moderation, and this input was flagged"

    async def answer(request: Request) -> Response:
        if "bisect" in request.json["messages"][0]["content"]:
            return Response(403, {"error": {"code": 403, "message": flagged}})
        found = demo(request)
        assert not isinstance(found, Response)
        return await found

    async with LoopbackServer(answer) as server:
        for sent in (10, 2):
            before = len(server.requests)
            outcome = await _run(tmp_path, (LISTS, HEAPS, "What does `textwrap.wrap` do?"), url=server.url)
            assert outcome.status is RunStatus.COMPLETE
            assert outcome.record.failed_by == {"responses": {FailureReason.REQUEST_REFUSED: 2}}
            assert len(_rows(tmp_path)) == 2
            assert sum(used.requests for used in outcome.record.usage.values()) == sent
            assert len(server.requests) - before == sent


def _without_probes(requests: Sequence[Request]) -> list[str]:
    texts = [str(request.json["messages"][0]["content"]) for request in requests]
    return [text for text in texts if text != "Hello"]


@pytest.mark.parametrize(("at_once", "probes"), [(1, 4), (8, 4)])
async def test_an_input_that_begins_with_refused_prompts_is_made_to_its_end_each_time(
    tmp_path: Path, at_once: int, probes: int
) -> None:
    def change(source: dict[str, Any]) -> None:
        source["workflow"] |= {"max_concurrency": at_once, "ask_together": "never"}

    good = (HEAPS, LISTS, "What does `textwrap.wrap` do?")
    demo = asgi_answer(create_app())
    received: list[Request] = []

    async def answer(request: Request) -> Response:
        received.append(request)
        if "forbidden" in request.json["messages"][0]["content"]:
            return Response(403, {"error": {"message": "Access to this was denied"}})
        found = demo(request)
        assert not isinstance(found, Response)
        return await found

    async with LoopbackServer(answer) as server:
        for _ in range(2):
            received.clear()
            texts = (*(f"What is forbidden thing {number}?" for number in range(12)), *good)
            outcome = await _run(tmp_path, texts, url=server.url, change=change)
            assert outcome.status is RunStatus.COMPLETE
            assert outcome.record.failed_by == {"responses": {FailureReason.REQUEST_REFUSED: 24}}
            assert [row["example_id"] for row in _rows(tmp_path)] == ["input-13", "input-14", "input-15"]
            asked = _without_probes(received)
            assert sum("forbidden" in text for text in asked) == 24
            assert 1 <= len(received) - len(asked) <= probes
            assert sum(used.requests for used in outcome.record.usage.values()) == len(received)
        # Of what was answered nothing is asked again, and a probe is no part of the journal.
        assert len(asked) == 24


async def test_a_wrong_key_ends_a_run_after_a_few_requests(tmp_path: Path) -> None:
    texts = [f"What is thing {number}?" for number in range(40)]
    async with LoopbackServer(lambda _: Response(403, {"error": {"message": "Forbidden"}})) as server:
        outcome = await _run(
            tmp_path, texts, url=server.url, change=lambda source: source["workflow"].update(max_concurrency=4)
        )
        assert len(server.requests) <= 4 + 1
    assert outcome.status is RunStatus.STOPPED
    assert outcome.record.stopped is not None
    assert "it was refused, and so was a harmless question" in outcome.record.stopped


async def test_a_dead_server_is_told_as_the_first_failure(tmp_path: Path) -> None:
    def change(source: dict[str, Any]) -> None:
        source["workflow"]["max_retries"] = 0

    outcome = await _run(tmp_path, ("{}", HEAPS), url="http://127.0.0.1:9/v1", change=change)
    assert outcome.status is RunStatus.INCOMPLETE
    assert outcome.record.counts["candidates"] == 0
    assert outcome.first_failure is not None
    assert "cannot be reached" in outcome.first_failure.detail


async def test_a_bug_of_a_step_is_in_the_outcome_and_what_was_collected_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "steps_of_a_test.py").write_text(
        "from nat_dpo_pipeline.generation.steps import Item, Map\n"
        "from nat_dpo_pipeline.generation.turns import Turn\n"
        "async def fragile(item: Item[Turn]) -> Turn:\n"
        "    if 'bisect' in item.value.question.text:\n"
        "        raise ZeroDivisionError('a bug')\n"
        "    return item.value\n"
        "def adapt(pipeline):\n"
        "    return pipeline >> Map(fragile)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def change(source: dict[str, Any]) -> None:
        source["workflow"] |= {"pipeline": "steps_of_a_test.adapt", "max_concurrency": 1}

    outcome = await _run(tmp_path, (LISTS,), change=change)
    assert outcome.status is RunStatus.FAILED
    assert isinstance(outcome.error, ZeroDivisionError)
    assert _manifest(tmp_path)["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_lets_the_calls_under_way_end(tmp_path: Path, number: signal.Signals) -> None:
    async with LoopbackServer(asgi_answer(create_app()), latency=lambda _: 0.1) as server:
        running = asyncio.create_task(_run(tmp_path, url=server.url))
        await until(lambda: server.answered >= 8, lambda: not running.done())
        os.kill(os.getpid(), number)
        outcome = await running
        assert outcome.status is RunStatus.INTERRUPTED
        assert _manifest(tmp_path)["status"] == "interrupted"
        # All that the server answered is on record, and in the table of requests.
        answered = server.answered
        assert sum(used.requests for used in outcome.record.usage.values()) == answered == len(server.requests)
        assert sum(one["requests"] for one in _manifest(tmp_path)["spending"]) == answered
        again = await _run(tmp_path, url=server.url)
        assert again.status is RunStatus.COMPLETE
        assert sum(used.replayed for used in again.record.usage.values()) == answered
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


async def test_failed_requests_of_interrupted_calls_are_counted(tmp_path: Path) -> None:
    def change(source: dict[str, Any]) -> None:
        source["workflow"] |= {"n_questions": 6, "max_concurrency": 4}

    fault = at_random(0.5, [Fault.SERVER_ERROR, Fault.RESET, Fault.TOO_MANY_REQUESTS], seed=5)
    async with LoopbackServer(asgi_answer(create_app()), fault=fault, latency=lambda _: 0.02) as server:
        running = asyncio.create_task(_run(tmp_path, url=server.url, change=change))
        await until(lambda: server.answered >= 12, lambda: not running.done())
        os.kill(os.getpid(), signal.SIGINT)
        outcome = await running
        assert outcome.status is RunStatus.INTERRUPTED
        assert sum(used.requests for used in outcome.record.usage.values()) == len(server.requests)


async def test_after_so_many_minutes_the_calls_under_way_end_and_the_rest_is_made_next_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(source: dict[str, Any]) -> None:
        source["workflow"] |= {"max_minutes": 0.5 / 60, "max_concurrency": 1}

    async with LoopbackServer(asgi_answer(create_app()), latency=lambda _: 0.1) as server:
        outcome = await _run(tmp_path, url=server.url, change=change)
        assert outcome.status is RunStatus.INCOMPLETE
        assert _manifest(tmp_path)["status"] == "incomplete"
        assert "max_minutes: 0.00833333 minutes are over" in caplog.text
        answered = server.answered
        again = await _run(tmp_path, url=server.url)
        assert again.status is RunStatus.COMPLETE
        assert sum(used.replayed for used in again.record.usage.values()) == answered


async def test_a_run_that_ends_in_time_is_complete(tmp_path: Path) -> None:
    outcome = await _run(tmp_path, change=lambda source: source["workflow"].update(max_minutes=10))
    assert outcome.status is RunStatus.COMPLETE


async def test_to_be_cancelled_ends_at_once_and_leaves_no_task(tmp_path: Path) -> None:
    hang = after(7, Fault.HANG)
    async with LoopbackServer(asgi_answer(create_app()), fault=hang) as server:
        running = asyncio.create_task(_run(tmp_path, url=server.url))
        await until(lambda: len(server.requests) > 7, lambda: not running.done())
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    own = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert own == []


async def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    from nat_dpo_pipeline.dataset.files import lock_of

    (tmp_path / "run").mkdir()
    with lock_of(tmp_path / "run"), pytest.raises(OutputError, match="another run is writing"):
        await _run(tmp_path)


@pytest.mark.parametrize("what", ["journal", "pipeline"])
async def test_what_cannot_run_leaves_an_earlier_run_as_it_is(tmp_path: Path, what: str) -> None:
    await _run(tmp_path)
    before = (tmp_path / "run" / "candidates.jsonl").read_bytes()
    broken = tmp_path / "broken"
    broken.write_text("something that is no database, and long enough to be taken for one " * 20)

    def change(source: dict[str, Any]) -> None:
        source["workflow"] |= {"journal": str(broken)} if what == "journal" else {"pipeline": "os.getcwd"}

    with pytest.raises((ConfigurationError, TypeError)):
        await _run(tmp_path, change=change)
    assert (tmp_path / "run" / "candidates.jsonl").read_bytes() == before
    assert _manifest(tmp_path)["status"] == "complete"


async def test_a_preview_takes_two_questions_of_a_topic(tmp_path: Path) -> None:
    config, workflow = load(_write_config(tmp_path))
    inputs = inputs_of(config, ("Data structures", "Text"), None)
    turns, record = await preview(config, workflow, inputs, nullcontext)
    assert [len(turn.candidates) for turn in turns] == [2, 2]
    assert (record.counts["topics"], record.counts["subtopics"], record.counts["questions"]) == (1, 1, 2)
    assert previewed(inputs, workflow) == [("input-1", "Data structures")]
    assert not (tmp_path / "run").exists()


async def test_a_preview_takes_the_first_two_questions(tmp_path: Path) -> None:
    config, workflow = load(_write_config(tmp_path))
    inputs = inputs_of(config, ("{}", HEAPS, LISTS, "Text"), None)
    turns, _ = await preview(config, workflow, inputs, nullcontext)
    assert [turn.question.text for turn in turns] == [HEAPS, LISTS]
    assert [name for name, _ in previewed(inputs, workflow)] == ["input-2", "input-3"]


def test_what_is_given_goes_before_the_file_and_the_file_before_the_evaluation(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Text\n")

    def change(source: dict[str, Any]) -> None:
        source["eval"]["general"]["dataset"]["file_path"] = str(ROOT / "configs" / "demo_topics.json")

    config, _ = load(_write_config(tmp_path, change))
    both = inputs_of(config, ("Dates",), tmp_path / "mine.txt")
    assert list(both) == list(both) == [("input-1", "Dates"), ("row-1", "Text")]
    assert list(inputs_of(config, ("Dates",), None)) == [("input-1", "Dates")]
    assert [name for name, _ in inputs_of(config, (), None)] == ["structures", "text", "dates"]


def test_an_id_on_the_command_line_and_one_in_the_file_differ(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"id": "input-1", "question": "Why?"}\n')
    config, _ = load(_write_config(tmp_path))
    assert [name for name, _ in inputs_of(config, ("Dates",), tmp_path / "mine.jsonl")] == ["input-1", "input-1#2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("secret: planted\nworkflow: [", "cannot be read as YAML"),
        ("workflow: ${", "cannot be used"),
        ("- a list", "must be a mapping of sections"),
        ("workflow: {_type: scored_candidates}", "is of type 'scored_candidates'; generate runs preference_data"),
        ("workflow: {_type: no_such_thing}", "cannot be used"),
    ],
)
def test_a_configuration_that_is_none_is_one_line_without_what_is_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, says: str
) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(ConfigurationError, match=says) as error:
        load(tmp_path / "config.yml")
    assert "\n" not in str(error.value)
    assert "planted" not in str(error.value) + caplog.text


def test_values_can_be_put_in_from_the_command_line(tmp_path: Path) -> None:
    path = _write_config(tmp_path)
    _, workflow = load(path, (("workflow.n_subtopics", "7"), ("workflow.sampling.responses.temperature", "[0.5, 1]")))
    assert workflow.n_subtopics == 7
    assert workflow.sampling.responses.temperature == [0.5, 1.0]
    with pytest.raises(ConfigurationError, match="n_subtopics"):
        load(path, (("workflow.n_subtopics.deeper", "7"),))
