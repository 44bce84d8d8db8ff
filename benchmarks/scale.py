"""Pairs from files to files: this package, polars' streaming engine and DuckDB, which join candidates with themselves.

    python benchmarks/scale.py [--only parquet|jsonl|scattered|growth|builder …] [--turns 250000] [--rounds 3]

parquet    contiguous turns of 4 in Parquet, pairs to Parquet: the three take turns; wall and processor time, and peak
           memory of all processes.
jsonl      the same from JSONL to JSONL.
scattered  the same from and to Parquet, the candidates of a turn scattered over all files.
growth     this package on a hundredth, a tenth and all of the turns.
recorded   rollouts in NeMo Gym's form and a workflow_output.json of as many steps, through `nat-dpo pairs`; with
           --beside, the folder of an older checkout of this package, also by that one.
builder    8 candidates a turn, 280,000 pairs: load, build and write, against NVIDIA's builder and its conversion to
           JSONL, which get the candidates as steps out of the same file. Their imports are not counted, ours are.

The peers write the same columns flat; they neither split, hash, nor look at white space. Each measurement is a process
of its own. Inputs are kept in a temporary folder, by their size. Prints one JSON line a part.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CANDIDATES = 4
# The folder of an older checkout, if one is given.
_OLDER: list[Path] = []
_FILES = 8
_PROMPT_LENGTH, _RESPONSE_LENGTH = 500, 1500
_ROWS_A_GROUP = 16384
_IDS = ("example_id", "turn_id")
# As installed: compiled once.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def make_text(draw: random.Random) -> str:
    """Words that do not compress better than prose does."""
    words = [
        "".join(draw.choices("etaoinshrdlucmfwypvbgkqjxz", range(26, 0, -1), k=draw.randint(2, 9))) for _ in range(8000)
    ]
    return " ".join(draw.choices(words, k=800_000))


def make_rows(turns: int, candidates: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    draw = random.Random(seed)
    text = make_text(draw)

    def some(length: int) -> str:
        start = draw.randrange(len(text) - length)
        return text[start : start + length]

    for turn in range(turns):
        prompt = f"{turn} {some(_PROMPT_LENGTH)}"
        for index in range(candidates):
            yield {
                "example_id": f"example-{turn // 10}",
                "turn_id": f"turn-{turn}",
                "candidate_index": index,
                "prompt": prompt,
                "response": f"{index} {some(_RESPONSE_LENGTH)}",
                "score": draw.gauss(0.0, 1.0),
            }


def inputs(folder: Path, turns: int, kind: str, *, scattered: bool = False) -> list[Path]:
    """The files of so many turns; made when they are not there."""
    stem = folder / f"{'scattered' if scattered else 'contiguous'}-{turns}"
    if not (stem / kind).exists():
        made = stem / f".{kind}"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        _write_inputs(made, turns, kind, scattered=scattered)
        made.rename(stem / kind)
    return sorted((stem / kind).iterdir())


def _write_inputs(folder: Path, turns: int, kind: str, *, scattered: bool) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = make_rows(turns, _CANDIDATES)
    in_file = turns * _CANDIDATES // _FILES
    waiting: list[list[dict[str, Any]]] = [[] for _ in range(_FILES)]
    draw = random.Random(1)
    paths = [folder / f"part-{number}.{kind}" for number in range(_FILES)]
    writers: dict[Path, Any] = {}

    def flush(number: int) -> None:
        some, waiting[number] = waiting[number], []
        if scattered:
            draw.shuffle(some)
        if kind == "jsonl":
            with paths[number].open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in some)
        elif some:
            table = pyarrow.Table.from_pylist(some)
            if paths[number] not in writers:
                writers[paths[number]] = parquet.ParquetWriter(paths[number], table.schema, compression="zstd")
            writers[paths[number]].write_table(table)

    for place, row in enumerate(rows):
        number = draw.randrange(_FILES) if scattered else min(place // in_file, _FILES - 1)
        waiting[number].append(row)
        if len(waiting[number]) >= _ROWS_A_GROUP:
            flush(number)
    for number in range(_FILES):
        flush(number)
    for writer in writers.values():
        writer.close()


# What is measured, each in a process of its own.


def ours(paths: list[Path], output: Path, kind: str) -> None:
    from nat_dpo_pipeline.core.pairs import PairingRules
    from nat_dpo_pipeline.pairing.api import pair_files
    from nat_dpo_pipeline.pairing.options import FileKind, PairingOptions

    options = PairingOptions(kind=FileKind(kind))
    pair_files([str(path) for path in paths], str(output), PairingRules(), options=options)


def polars(paths: list[Path], output: Path, kind: str) -> None:
    import polars as pl

    output.mkdir()
    read = pl.scan_parquet if kind == "parquet" else pl.scan_ndjson
    better, worse = read(paths), read(paths).drop("prompt")
    pairs = better.join(worse, on=list(_IDS)).filter(pl.col("score") > pl.col("score_right"))
    rows = pairs.select(
        "prompt",
        pl.col("response").alias("chosen"),
        pl.col("response_right").alias("rejected"),
        pl.col("score").alias("chosen_score"),
        pl.col("score_right").alias("rejected_score"),
        *_IDS,
    )
    if kind == "parquet":
        rows.sink_parquet(output / "pairs.parquet", compression="zstd", engine="streaming")
    else:
        rows.sink_ndjson(output / "pairs.jsonl", engine="streaming")


def duckdb(paths: list[Path], output: Path, kind: str) -> None:
    import duckdb as database

    output.mkdir()
    listed = [str(path) for path in paths]
    read = f"read_parquet({listed})" if kind == "parquet" else f"read_json({listed}, format = 'newline_delimited')"
    to = "FORMAT parquet, COMPRESSION zstd" if kind == "parquet" else "FORMAT json"
    connection = database.connect()
    connection.execute(f"SET preserve_insertion_order = false; SET temp_directory = '{output}'")
    connection.execute(
        f"COPY (SELECT a.prompt, a.response AS chosen, b.response AS rejected, a.score AS chosen_score, "
        f"b.score AS rejected_score, a.example_id, a.turn_id FROM {read} a JOIN {read} b USING (example_id, turn_id) "
        f"WHERE a.score > b.score) TO '{output}/pairs.{kind}' ({to})"
    )


def nvidia(paths: list[Path], output: Path, _kind: str) -> None:
    """Steps out of a file, NVIDIA's builder, the rows of its trainer adapter, one JSONL file."""
    import asyncio
    import logging

    from nat.data_models.evaluate_runtime import EvaluationRunOutput, ProfilerResults, UsageStats
    from nat.data_models.evaluator import EvalInput, EvalInputItem
    from nat.data_models.intermediate_step import IntermediateStep, IntermediateStepPayload, TTCEventData
    from nat.data_models.invocation_node import InvocationNode
    from nat.plugins.customizer.dpo.config import DPOTrajectoryBuilderConfig, NeMoCustomizerTrainerAdapterConfig
    from nat.plugins.customizer.dpo.trainer_adapter import NeMoCustomizerTrainerAdapter
    from nat.plugins.customizer.dpo.trajectory_builder import DPOTrajectoryBuilder

    logging.disable(logging.CRITICAL)
    started = time.perf_counter()
    ancestry = InvocationNode(function_name="workflow", function_id="workflow")
    examples: dict[str, list[IntermediateStep]] = {}
    for path in paths:
        with path.open() as file:
            for row in map(json.loads, file):
                data = TTCEventData(
                    turn_id=row["turn_id"],
                    turn_index=0,
                    candidate_index=row["candidate_index"],
                    score=row["score"],
                    input=row["prompt"],
                    output=row["response"],
                )
                payload = IntermediateStepPayload(event_type="TTC_END", name="dpo_candidate_move", data=data)
                step = IntermediateStep(parent_id="root", function_ancestry=ancestry, payload=payload)
                examples.setdefault(row["example_id"], []).append(step)
    items = [
        EvalInputItem(
            id=name,
            input_obj="",
            expected_output_obj="",
            output_obj="",
            trajectory=steps,
            expected_trajectory=[],
            full_dataset_entry={},
        )
        for name, steps in examples.items()
    ]
    evaluation = EvaluationRunOutput(
        workflow_output_file=None,
        evaluator_output_files=[],
        workflow_interrupted=False,
        eval_input=EvalInput(eval_input_items=items),
        evaluation_results=[],
        usage_stats=UsageStats(),
        profiler_results=ProfilerResults(),
    )
    built = DPOTrajectoryBuilder(DPOTrajectoryBuilderConfig(exhaustive_pairs=True))

    async def stubbed() -> EvaluationRunOutput:
        return evaluation

    async def run() -> Any:
        built.run_eval = stubbed
        await built.start_run("run")
        await asyncio.sleep(0)
        return await built.finalize("run")

    collection = asyncio.run(run())
    adapter = NeMoCustomizerTrainerAdapter.__new__(NeMoCustomizerTrainerAdapter)
    adapter.adapter_config = NeMoCustomizerTrainerAdapterConfig.model_construct()
    output.mkdir()
    for name, text in zip(("train", "validation"), adapter._trajectory_to_dpo_jsonl(collection), strict=True):  # noqa: SLF001
        (output / f"{name}.jsonl").write_text(text)
    print(time.perf_counter() - started)


def command(paths: list[Path], output: Path, _kind: str) -> None:
    """The command, of whichever checkout comes first on the path."""
    from nat_dpo_pipeline.cli import dpo

    with contextlib.redirect_stdout(sys.stderr):
        dpo(["pairs", *map(str, paths), "-o", str(output)], standalone_mode=False)


_ENGINES = {
    "ours": ours,
    "command": command,
    "older": command,
    "polars": polars,
    "duckdb": duckdb,
    "nvidia": nvidia,
}


def measured(engine: str, paths: list[Path], output: Path, kind: str) -> dict[str, float]:
    """Seconds of wall and processor time and, in megabytes, the most that all its processes held at a time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = _ENVIRONMENT | ({"PYTHONPATH": f"{_OLDER[0]}/src"} if engine == "older" else {})
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-W", "ignore", __file__, "--engine", engine, "--kind", kind, "--output", str(output)]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, *map(str, paths)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    most = 0
    while process.poll() is None:
        most = max(most, sum(map(resident, descendants(process.pid))))
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    told, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{engine} failed: {errors[-2000:]}")
    if told:
        seconds = float(told)
    shutil.rmtree(output, ignore_errors=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(seconds, 2), "processor": round(processor, 2), "megabytes": round(most / 1e6)}


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += children.get(process, [])
    return found


def resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def compared(engines: list[str], paths: list[Path], output: Path, kind: str, rounds: int) -> dict[str, Any]:
    """The engines in turns; ratios are medians over the rounds, of each engine to the first."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name in engines:
            found[name].append(measured(name, paths, output, kind))
    first = engines[0]
    result: dict[str, Any] = {}
    for name, runs in found.items():
        result[name] = {
            key: statistics.median(run[key] for run in runs) for key in ("seconds", "processor", "megabytes")
        }
        if name != first:
            for key in ("seconds", "processor", "megabytes"):
                ratios = [theirs[key] / mine[key] for theirs, mine in zip(runs, found[first], strict=True)]
                result[name][f"{key}_ratio"] = round(statistics.median(ratios), 2)
    return result


def growth(folder: Path, turns: int, output: Path, kind: str) -> dict[str, Any]:
    sizes = (turns // 100, turns // 10, turns)
    runs = {size * _CANDIDATES: measured("ours", inputs(folder, size, kind), output, kind) for size in sizes}
    last, before = runs[turns * _CANDIDATES], runs[turns // 10 * _CANDIDATES]
    return {"candidates": runs, "memory_growth": round(last["megabytes"] / before["megabytes"] - 1, 3)}


def recorded(folder: Path, turns: int, output: Path, rounds: int) -> dict[str, Any]:
    engines = ["command", *(["older"] if _OLDER else [])]
    return {
        path.stem: compared(engines, [path], output, "jsonl", rounds)
        for path in (_rollouts(folder, turns), _workflow_output(folder, turns))
    }


def _rollouts(folder: Path, turns: int) -> Path:
    path = folder / f"rollouts-{turns}.jsonl"
    if not path.exists():
        with path.with_suffix(".part").open("w") as file:
            for place, row in enumerate(make_rows(turns, _CANDIDATES)):
                answer = {"type": "output_text", "text": row["response"]}
                rollout = {
                    "responses_create_params": {"input": [{"role": "user", "content": row["prompt"]}]},
                    "response": {"output": [{"type": "message", "role": "assistant", "content": [answer]}]},
                    "reward": row["score"],
                    "_ng_task_index": place // _CANDIDATES,
                    "_ng_rollout_index": place % _CANDIDATES,
                }
                file.write(json.dumps(rollout) + "\n")
        path.with_suffix(".part").rename(path)
    return path


def _workflow_output(folder: Path, turns: int) -> Path:
    path = folder / f"workflow-output-{turns}.json"
    if not path.exists():
        items: dict[str, list[dict[str, Any]]] = {}
        for row in make_rows(turns, _CANDIDATES):
            data = {"input": row["prompt"], "output": row["response"], "turn_id": row["turn_id"], "score": row["score"]}
            payload = {"event_type": "TTC_END", "name": "dpo_candidate_move", "UUID": "u", "data": data}
            step = {"parent_id": "root", "function_ancestry": {"function_id": "f"}, "payload": payload}
            items.setdefault(row["example_id"], []).append(step)
        listed = [{"id": name, "question": "?", "intermediate_steps": steps} for name, steps in items.items()]
        path.with_suffix(".part").write_text(json.dumps(listed, indent=2))
        path.with_suffix(".part").rename(path)
    return path


def builder(folder: Path, output: Path, rounds: int) -> dict[str, Any]:
    path = folder / "builder.jsonl"
    if not path.exists():
        with path.with_suffix(".part").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in make_rows(10_000, 8))
        path.with_suffix(".part").rename(path)
    return {"pairs": 280_000, **compared(["ours", "nvidia"], [path], output, "jsonl", rounds)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parts = ("parquet", "jsonl", "scattered", "growth", "recorded", "builder")
    parser.add_argument("--only", choices=parts, nargs="+", default=list(parts))
    parser.add_argument("--turns", type=int, default=250_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nat-dpo-scale")
    parser.add_argument("--peers", nargs="*", default=["polars", "duckdb"])
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--engine", choices=list(_ENGINES))
    parser.add_argument("--kind")
    parser.add_argument("--output", type=Path)
    parser.add_argument("paths", nargs="*", type=Path)
    given = parser.parse_args()
    if given.engine:
        _ENGINES[given.engine](given.paths, given.output, given.kind)
        return
    given.folder.mkdir(exist_ok=True)
    _OLDER.extend([given.beside] if given.beside else [])
    output = given.folder / "output"
    for part in given.only:
        engines, folder = ["ours", *given.peers], given.folder
        if part == "growth":
            found = growth(folder, given.turns, output, "parquet")
        elif part == "recorded":
            found = recorded(folder, given.turns, output, given.rounds)
        elif part == "builder":
            found = builder(folder, output, given.rounds)
        else:
            kind = "jsonl" if part == "jsonl" else "parquet"
            paths = inputs(folder, given.turns, kind, scattered=part == "scattered")
            found = compared(engines, paths, output, kind, given.rounds)
        facts = {"benchmark": "scale", "part": part, "python": platform.python_version(), "turns": given.turns}
        print(json.dumps({**facts, **found}), flush=True)


if __name__ == "__main__":
    main()
