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
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from nat.builder.workflow_builder import WorkflowBuilder
from nat.data_models.config import Config
from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, register_function
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    result = {"benchmark": "capture", "python": platform.python_version(), "calls": given.calls}
    middleware = asyncio.run(measured_middleware(given.calls, given.rounds))
    print(json.dumps({**result, "middleware": middleware}))


if __name__ == "__main__":
    main()
