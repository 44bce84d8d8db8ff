"""With `return: first` the caller has the answer, and the rest goes on and is recorded."""

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nat.data_models.runtime_enum import RuntimeTypeEnum
from nat.plugin_api import Builder

from tests import own_time
from tests.plugin.functions import BODIES, CLOSED, Asked, Source, workflow, wrapped

pytestmark = pytest.mark.own_time

LATER = ["It is so.", "Because of the tides and the moon.", "No idea"]


class Gate:
    """A function whose first call of each three answers at once, and whose others wait until they may."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.called = 0

    async def __call__(self, _: Any, __: Builder) -> str:
        number, self.called = self.called % 3, self.called + 1
        if number:
            await self.may_go_on.wait()
            assert "function" not in CLOSED
        return LATER[number]


@pytest.fixture
def gate() -> Iterator[Gate]:
    async def length(asked: Asked, _: Builder) -> float:
        return float(len(asked.response))

    gate = Gate()
    BODIES.update(length=length, function=gate)
    yield gate
    BODIES.clear()


def _source(folder: Path, *, is_recorded: bool = True, **settings: Any) -> Source:
    candidates = {"_type": "dpo_candidates", "path": str(folder / "candidates.jsonl")}
    general = {"telemetry": {"tracing": {"candidates": candidates}}} if is_recorded else {}
    return wrapped("function", {"return": "first", **settings}, general=general)


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "candidates.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def _recorded(folder: Path, rows: int) -> None:
    async with asyncio.timeout(5):
        while len(_rows(folder)) < rows:  # noqa: ASYNC110 - a file does not tell
            await asyncio.sleep(0.01)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING and "middleware" in one.name]


async def test_the_caller_waits_for_the_first_call_alone_and_all_are_recorded(gate: Gate, tmp_path: Path) -> None:
    async with workflow(_source(tmp_path)) as built:
        run = await asyncio.wait_for(built.run("Why?"), 5)
        assert run.result == LATER[0]
        assert _rows(tmp_path) == []
        gate.may_go_on.set()
        await _recorded(tmp_path, 3)
    rows = _rows(tmp_path)
    assert {row["response"]: row["score"] for row in rows} == {text: len(text) for text in LATER}
    assert [row["metadata"]["returned"] for row in rows] == [True, False, False]
    assert len({(row["run_id"], row["turn_id"]) for row in rows}) == 1
    assert {row["input"] for row in rows} == {"Why?"}


async def test_each_of_several_recorders_has_all(gate: Gate, tmp_path: Path) -> None:
    source = _source(tmp_path)
    other = {"_type": "dpo_candidates", "path": str(tmp_path / "other" / "candidates.jsonl")}
    source["general"]["telemetry"]["tracing"]["other"] = other
    async with workflow(source) as built:
        await built.run("Why?")
        gate.may_go_on.set()
    assert [row["response"] for row in _rows(tmp_path)] == LATER
    assert [row["response"] for row in _rows(tmp_path / "other")] == LATER


async def test_scoring_is_not_waited_for(gate: Gate, tmp_path: Path) -> None:
    may_score = asyncio.Event()

    async def slow(asked: Asked, _: Builder) -> float:
        await may_score.wait()
        return float(len(asked.response))

    BODIES["length"] = slow
    gate.may_go_on.set()
    async with workflow(_source(tmp_path, n=1, **{"return": "best"})) as built:
        assert (await asyncio.wait_for(built.run("Why?"), 5)).result == LATER[0]
        assert _rows(tmp_path) == []
        may_score.set()
        await _recorded(tmp_path, 1)
    assert [(row["score"], row["metadata"]["returned"]) for row in _rows(tmp_path)] == [(len(LATER[0]), True)]


@pytest.mark.usefixtures("gate")
async def test_a_result_is_recorded_as_the_caller_had_it(tmp_path: Path) -> None:
    may_score = asyncio.Event()

    async def slow(_: Asked, __: Builder) -> float:
        await may_score.wait()
        return 1.0

    async def function(_: Any, __: Builder) -> Any:
        return ["as it was"]

    BODIES.update(length=slow, function=function)
    async with workflow(_source(tmp_path, n=1)) as built:
        (await built.run("Why?")).result.clear()
        may_score.set()
        await _recorded(tmp_path, 1)
    assert [row["response"] for row in _rows(tmp_path)] == ['["as it was"]']


@pytest.mark.parametrize(
    ("is_recorded", "runtime_type", "settings"),
    [
        (False, RuntimeTypeEnum.RUN_OR_SERVE, {}),
        # Its result are the steps of the run.
        (True, RuntimeTypeEnum.EVALUATE, {}),
        (True, RuntimeTypeEnum.RUN_OR_SERVE, {"return": "best"}),
    ],
    ids=["nobody records", "evaluation", "the best"],
)
async def test_otherwise_the_caller_waits(
    gate: Gate, tmp_path: Path, is_recorded: bool, runtime_type: RuntimeTypeEnum, settings: dict[str, Any]
) -> None:
    async with workflow(_source(tmp_path, is_recorded=is_recorded, **settings), runtime_type) as built:
        running = asyncio.create_task(built.run("Why?"))
        await own_time.until_nothing_moves()
        assert not running.done()
        gate.may_go_on.set()
        run = await running
    assert sorted(run.responses()) == sorted(LATER)
    assert len(_rows(tmp_path)) == (3 if is_recorded else 0)


async def test_while_the_run_goes_on_the_steps_are_of_the_run(gate: Gate, tmp_path: Path) -> None:
    async def outer(value: str, builder: Builder) -> str:
        inner = await builder.get_function("inner")
        answer = await inner.ainvoke(value)
        gate.may_go_on.set()
        await _recorded(tmp_path, 3)
        return str(answer)

    BODIES["outer"] = outer
    source = _source(tmp_path)
    source["functions"]["inner"] = {"_type": "test_body", "body": "function", "middleware": ["bon"]}
    source["workflow"] = {"_type": "test_body", "body": "outer", "calls": "inner"}
    async with workflow(source) as built:
        run = await built.run("Why?")
    assert run.result == LATER[0]
    assert run.responses() == LATER
    assert len(_rows(tmp_path)) == 3
    (inner,) = [
        step.payload.UUID for step in run.steps if step.payload.name == "inner" and step.event_type == "FUNCTION_START"
    ]
    parents = {step.parent_id for step in run.steps if step.event_type in ("TTC_START", "TTC_END")}
    assert parents == {inner}


@pytest.mark.usefixtures("gate")
async def test_when_the_first_call_fails_another_answers(tmp_path: Path) -> None:
    calls = iter(range(3))

    async def function(_: Any, __: Builder) -> str:
        number = next(calls)
        if not number:
            raise OSError("down")
        return LATER[number]

    BODIES["function"] = function
    async with workflow(_source(tmp_path)) as built:
        assert (await built.run("Why?")).result == LATER[1]
    assert [row["response"] for row in _rows(tmp_path)] == LATER[1:]


async def test_the_end_waits_before_functions_close(gate: Gate, tmp_path: Path) -> None:
    async with workflow(_source(tmp_path)) as built:
        await built.run("Why?")
        asyncio.get_running_loop().call_later(0.1, gate.may_go_on.set)
    assert len(_rows(tmp_path)) == 3


@pytest.mark.usefixtures("gate")
async def test_the_end_does_not_wait_for_ever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(5):
        async with workflow(_source(tmp_path, max_scoring_seconds=0.1)) as built:
            await built.run("Why?")
    assert _rows(tmp_path) == []
    assert _warnings(caplog) == ["best_of_n: a turn is not recorded, as the process ended first (1 so far)"]
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


@pytest.mark.usefixtures("gate")
async def test_calls_that_are_too_slow_are_given_up_behind_the_answer(tmp_path: Path) -> None:
    async with workflow(_source(tmp_path, max_seconds=0.1)) as built:
        await built.run("Why?")
        await _recorded(tmp_path, 1)
    assert [row["response"] for row in _rows(tmp_path)] == LATER[:1]


async def test_so_many_are_unfinished_at_most(gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with workflow(_source(tmp_path, max_unfinished=2)) as built:
        for _ in range(2):
            await built.run("Why?")
        assert gate.called == 6
        await built.run("Why?")
        assert gate.called == 7
        assert _warnings(caplog) == [
            "best_of_n: a call goes straight through, as max_unfinished others are not finished (1 so far)"
        ]
        gate.may_go_on.set()
        await _recorded(tmp_path, 6)
        gate.called = 0
        await built.run("Why?")
        assert gate.called == 3


async def test_the_end_of_the_caller_before_the_answer_is_the_end_of_all_calls(gate: Gate, tmp_path: Path) -> None:
    gate.called = 1
    async with workflow(_source(tmp_path, calls_at_once=2)) as built:
        running = asyncio.create_task(built.run("Why?"))
        await own_time.until_nothing_moves()
        assert gate.called == 3
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert _rows(tmp_path) == []
