"""Pair building: this package against NVIDIA's builder, on the same input in the same process.

Times `finalize` with the evaluation stubbed; the two take turns, the medians are compared. Memory is what `finalize`
allocates above its input, at its peak. Needs nvidia-nat-nemo-customizer beside this package:

    make bench

Prints one JSON line.
"""

import argparse
import asyncio
import gc
import json
import logging
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable

from nat.data_models.evaluate_runtime import EvaluationRunOutput, ProfilerResults, UsageStats
from nat.data_models.evaluator import EvalInput, EvalInputItem
from nat.data_models.intermediate_step import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    StreamEventData,
)
from nat.data_models.invocation_node import InvocationNode
from nat.finetuning.interfaces.trajectory_builder import TrajectoryBuilder
from nat.plugins.customizer.dpo.config import DPOTrajectoryBuilderConfig as TheirConfig
from nat.plugins.customizer.dpo.trajectory_builder import DPOTrajectoryBuilder as TheirBuilder

from nat_dpo_pipeline.plugin.finetuning.trajectory_builder import DPOTrajectoryBuilder as OurBuilder
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig as OurConfig

_TURNS_AN_EXAMPLE = 10
_PROMPT_LENGTH = 500
_RESPONSE_LENGTH = 1500


def make_evaluation(turns: int, candidates: int, seed: int = 0) -> EvaluationRunOutput:
    """An evaluation's output as NAT delivers it: TTC data comes as StreamEventData with extra fields."""
    draw = random.Random(seed)
    ancestry = InvocationNode(function_name="workflow", function_id="workflow")
    items = []
    for example in range(turns // _TURNS_AN_EXAMPLE):
        trajectory = []
        for turn in range(_TURNS_AN_EXAMPLE):
            prompt = f"{example}-{turn} ".ljust(_PROMPT_LENGTH, "p")
            for index in range(candidates):
                data = {
                    "turn_id": f"turn-{turn}",
                    "turn_index": turn,
                    "candidate_index": index,
                    "score": draw.random(),
                    "input": prompt[:],
                    "output": f"{example}-{turn}-{index} ".ljust(_RESPONSE_LENGTH, "r"),
                }
                payload = IntermediateStepPayload(
                    event_type=IntermediateStepType.TTC_END,
                    name="dpo_candidate_move",
                    data=StreamEventData(**data),
                    metadata={"model": "m"},
                )
                trajectory.append(IntermediateStep(parent_id="root", function_ancestry=ancestry, payload=payload))
        items.append(_item(str(example), trajectory))
    return EvaluationRunOutput(
        workflow_output_file=None,
        evaluator_output_files=[],
        workflow_interrupted=False,
        eval_input=EvalInput(eval_input_items=items),
        evaluation_results=[],
        usage_stats=UsageStats(),
        profiler_results=ProfilerResults(),
    )


def _item(name: str, trajectory: list[IntermediateStep]) -> EvalInputItem:
    return EvalInputItem(
        id=name,
        input_obj="",
        expected_output_obj="",
        output_obj="",
        trajectory=trajectory,
        expected_trajectory=[],
        full_dataset_entry={},
    )


def finalized(builder: TrajectoryBuilder, evaluation: EvaluationRunOutput) -> tuple[float, int]:
    """Seconds that `finalize` takes, and the pairs it makes."""

    async def stubbed() -> EvaluationRunOutput:
        return evaluation

    async def run() -> tuple[float, int]:
        builder.run_eval = stubbed
        await builder.start_run("run")
        await asyncio.sleep(0)
        started = time.perf_counter()
        collection = await builder.finalize("run")
        seconds = time.perf_counter() - started
        return seconds, sum(len(group) for group in collection.trajectories)

    return asyncio.run(run())


def peak_memory(make: Callable[[], TrajectoryBuilder], evaluation: EvaluationRunOutput) -> int:
    """Bytes that `finalize` allocates at its peak."""
    gc.collect()
    tracemalloc.start()
    try:
        finalized(make(), evaluation)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--best-vs-worst", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)

    exhaustive = not options.best_vs_worst
    evaluation = make_evaluation(options.turns, options.candidates)
    makers = {
        "ours": lambda: OurBuilder(OurConfig(exhaustive_pairs=exhaustive)),
        "theirs": lambda: TheirBuilder(TheirConfig(exhaustive_pairs=exhaustive)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    pairs: dict[str, int] = {}
    for _ in range(options.rounds):
        for name, make in makers.items():
            gc.collect()
            elapsed, pairs[name] = finalized(make(), evaluation)
            seconds[name].append(elapsed)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    memory = {name: peak_memory(make, evaluation) for name, make in makers.items()}
    print(
        json.dumps(
            {
                "benchmark": "pair_building",
                "turns": options.turns,
                "candidates": options.candidates,
                "mode": "exhaustive" if exhaustive else "best_vs_worst",
                "pairs": pairs,
                "median_seconds": {name: round(value, 3) for name, value in median.items()},
                "speed_ratio": round(median["theirs"] / median["ours"], 2),
                "peak_megabytes": {name: round(value / 1e6, 1) for name, value in memory.items()},
                "memory_ratio": round(memory["ours"] / memory["theirs"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
