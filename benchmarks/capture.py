"""What capturing candidates costs, in milliseconds.

    python benchmarks/capture.py

`middleware`: a call of a function with `best_of_n` around it, n = 1 and a scorer that returns at once, beside the same
call without. Each is the median of the rounds. Prints one JSON line.
"""

import argparse
import asyncio
import json
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from nat.builder.context import Context, ContextState
from nat.builder.workflow_builder import WorkflowBuilder
from nat.data_models.config import Config
from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, register_function
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema
from nat.utils.reactive.subject import Subject

from nat_dpo_pipeline.plugin.capture import emit_candidates
from nat_dpo_pipeline.plugin.exporter_config import CandidateExporterConfig
from nat_dpo_pipeline.plugin.nat_api import IntermediateStep, IntermediateStepType
from nat_dpo_pipeline.plugin.telemetry.exporter import CandidateExporter

_SETTINGS: dict[str, dict[str, object]] = {
    "plain": {},
    "rotating": {"max_bytes": 1_000_000},
    "redacting": {"redact": [r"[\w.]+@[\w.]+", r"sk-\w+"], "redact_fields": ["metadata.user"]},
}


class AnswerConfig(FunctionBaseConfig, name="benchmark_answer"):
    """Answers at once."""


class ScoreConfig(FunctionBaseConfig, name="benchmark_score"):
    """Scores at once."""


@register_function(config_type=AnswerConfig)
async def answer(_: AnswerConfig, __: Builder) -> AsyncIterator[FunctionInfo]:
    async def run(question: str) -> str:
        return f"{question} Because."

    yield FunctionInfo.from_fn(run)


@register_function(config_type=ScoreConfig)
async def score(_: ScoreConfig, __: Builder) -> AsyncIterator[FunctionInfo]:
    async def run(prompt: list[dict[str, str]], response: str) -> float:
        return float(len(prompt) + len(response))

    yield FunctionInfo.from_fn(run)


async def measured_middleware(calls: int, rounds: int) -> dict[str, float]:
    source: dict[str, Any] = {
        "middleware": {"scoring": {"_type": "best_of_n", "n": 1, "scorer": {"kind": "function", "function": "score"}}},
        "functions": {
            "score": {"_type": "benchmark_score"},
            "bare": {"_type": "benchmark_answer"},
            "wrapped": {"_type": "benchmark_answer", "middleware": ["scoring"]},
        },
        "workflow": {"_type": "benchmark_answer"},
    }
    async with WorkflowBuilder.from_config(validate_schema(source, Config)) as builder:
        timed: dict[str, list[float]] = {"bare": [], "wrapped": []}
        functions = {name: await builder.get_function(name) for name in timed}
        for _ in range(rounds):
            # In turn, so that whatever else the machine does falls on both.
            for name, function in functions.items():
                timed[name].append(await _milliseconds(lambda asked=function: asked.ainvoke("Why?"), calls))
    found = {f"{name}_ms": round(statistics.median(times), 4) for name, times in timed.items()}
    return {**found, "overhead_ms": round(found["wrapped_ms"] - found["bare_ms"], 4)}


async def _milliseconds(call: Callable[[], Awaitable[object]], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        await call()
    return 1000 * (time.perf_counter() - started) / calls


def _steps(count: int) -> list[IntermediateStep]:
    """TTC_END steps of turns of eight, with prompts and responses of about 600 characters each."""
    steps: list[IntermediateStep] = []
    ContextState.get().event_stream.set(Subject())
    subscription = Context.get().intermediate_step_manager.subscribe(steps.append)
    for number in range(count // 8):
        emit_candidates(
            prompt=f"Question {number}? " + "It is about something. " * 25,
            responses=[f"Answer {place}. " + "Nobody knows it all. " * 28 for place in range(8)],
            scores=[place / 8 for place in range(8)],
            metadata=[{"topic": "t", "user": "u"}] * 8,
        )
    subscription.unsubscribe()
    return [step for step in steps if step.event_type is IntermediateStepType.TTC_END]


def _microseconds_a_step(steps: list[IntermediateStep], settings: dict[str, object]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candidates.jsonl"
        exporter = CandidateExporter(CandidateExporterConfig.model_validate({"path": path, **settings}))
        started = time.perf_counter()
        for step in steps:
            exporter.export(step)
        took = time.perf_counter() - started
        exporter.log.close()
        written = sum(file.read_bytes().count(b"\n") for file in path.parent.iterdir())
    if written != len(steps) or exporter.log.lost:
        raise AssertionError(f"{written} of {len(steps)} steps were written")
    return 1e6 * took / len(steps)


def measured_exporter(count: int, rounds: int) -> dict[str, float]:
    steps = _steps(count)
    return {
        name: round(statistics.median(_microseconds_a_step(steps, settings) for _ in range(rounds)), 1)
        for name, settings in _SETTINGS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--steps", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    python = {"python": platform.python_version()}
    middleware = asyncio.run(measured_middleware(given.calls, given.rounds))
    print(json.dumps({"benchmark": "capture.middleware", **python, "calls": given.calls, **middleware}))
    exporter = measured_exporter(given.steps, given.rounds)
    print(
        json.dumps({"benchmark": "capture.exporter", **python, "steps": given.steps, "microseconds_a_step": exporter})
    )


if __name__ == "__main__":
    main()
