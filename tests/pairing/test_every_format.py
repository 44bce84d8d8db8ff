"""One task makes what many make, in whatever format candidates were recorded, and whoever does the tasks."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.dataset.writer import Target
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.pairing import engines
from nat_dpo_pipeline.pairing.api import pair_files
from nat_dpo_pipeline.pairing.options import EngineName, PairedFiles, PairingOptions, Written
from tests.pairing.candidates import Row, lines_in, make_rows, write_jsonl
from tests.recordings import Recordings

OPTIONS = PairingOptions(
    formats=("trl", "kto"), shard_bytes=700, validation_fraction=0.3, deduplicate=True, single_label_score=0.5
)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LocalEngine", lambda *_: engines.InlineEngine())


def check_same(folder: Path, inputs: list[str], options: PairingOptions = OPTIONS) -> PairedFiles:
    """Pair the inputs as one task and as many, which must make the same; gives what the many made."""
    one = replace(options, engine=EngineName.MEMORY)
    whole = pair_files(inputs, str(folder / "whole"), PairingRules(), options=one, written=Written(Target(one.formats)))
    shards = pair_files(inputs, str(folder / "shards"), PairingRules(), options=replace(options, max_bad_share=1.0))
    for name in ("pairs", "candidates", "turns", "turns_split", "skipped", "refused", "bad_rows", "scattered"):
        assert getattr(whole, name) == getattr(shards, name), name
    assert [replace_told(file) for file in whole.read] == [replace_told(file) for file in shards.read]
    for name in options.formats:
        for side in SplitName:
            found = lines_in(folder / "shards", name, side, shards=True)
            assert found == lines_in(folder / "whole", name, side, shards=False), (name, side)
    return shards


def replace_told(file: Any) -> tuple[object, ...]:
    return file.path, file.format, file.records, file.candidates, +file.refused


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "names",
    [
        ("recorded_candidates/workflow_output.json",),
        ("recorded_candidates.jsonl",),
        ("full.txt",),
        ("filtered.txt",),
        ("events.jsonl",),
        ("recorded_answers/workflow_output_atif.json", "recorded_answers/length_output.json"),
        # All in one run, each twice: what belongs together over several files does, and files keep their order.
        ("events.jsonl", "recorded_candidates.jsonl", "full.txt", "recorded_candidates/workflow_output.json"),
    ],
    ids="/".join,
)
def test_what_real_tools_wrote(recordings: Recordings, tmp_path: Path, names: tuple[str, ...]) -> None:
    found = check_same(tmp_path, [str(recordings.folder / name) for name in names])
    assert found.candidates > 8
    assert sum(found.pairs.values()) > 8


def _turn_rows(rows: list[Row]) -> list[Row]:
    turns: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        turns.setdefault((row["example_id"], row["turn_id"]), []).append(row)
    own = ("response", "score", "model", "attributes", "metadata")
    return [
        {"prompt": some[0]["prompt"], "candidates": [{name: one[name] for name in own} for one in some]}
        for some in turns.values()
    ]


def _gym(rows: list[Row]) -> list[Row]:
    return [
        {
            "responses_create_params": {"input": row["prompt"]},
            "response": {"output": [{"type": "message", "role": "assistant", "content": row["response"]}]},
            "reward": row["score"],
            "_ng_task_index": row["turn_id"],
        }
        for row in rows
    ]


def _without_ids(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if not name.endswith("_id")} for row in rows]


RECORDS: dict[str, Callable[[list[Row]], list[Row]]] = {
    "flat rows": list,
    "flat rows without ids": _without_ids,
    "turn rows": _turn_rows,
    "rollout rows": lambda rows: [
        {"reward" if name == "score" else name: value for name, value in row.items()} for row in _without_ids(rows)
    ],
    "NeMo Gym": _gym,
}


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("kind", RECORDS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    is_shuffled=st.booleans(),
    form=st.sampled_from(["lines", "gzip", "array", "pretty array", "two files"]),
    broken=st.lists(st.sampled_from(["{", "[1]", "7", "", '{"prompt": 1}', "\ud7ff"]), max_size=3),
    shard_bytes=st.sampled_from([300, 2000, 10**6]),
)
def test_rows_with_all_that_can_be_wrong(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    seed: int,
    is_shuffled: bool,
    form: str,
    broken: list[str],
    shard_bytes: int,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    records = RECORDS[kind](make_rows(20, seed))
    if is_shuffled:
        Random(seed).shuffle(records)
    texts = [json.dumps(record) for record in records]
    if form in ("lines", "gzip", "two files"):
        texts = [*texts[:1], *broken, *texts[1:], *broken]
    content = {"array": json.dumps(records), "pretty array": json.dumps(records, indent=2)}.get(form, "\n".join(texts))
    if form == "two files":
        (folder / "b.jsonl").write_text("\n".join(texts[::2]))
        content = "\n".join(texts[1::2])
    data = content.encode()
    (folder / "a.jsonl").write_bytes(gzip.compress(data) if form == "gzip" else data)
    inputs = [str(folder / "*.jsonl")]
    try:
        check_same(folder, inputs, replace(OPTIONS, shard_bytes=shard_bytes, seed=seed))
    except InputError as error:  # the first records of a file decide what it is
        assert "holds no recorded candidates" in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", ["flat rows without ids", "NeMo Gym"])
def test_processes_make_the_same(tmp_path: Path, kind: str) -> None:
    records = RECORDS[kind](make_rows(150, 3))
    Random(3).shuffle(records)
    write_jsonl(tmp_path / "rows.jsonl", records)
    found = check_same(tmp_path, [str(tmp_path / "rows.jsonl")], replace(OPTIONS, shard_bytes=20_000, workers=2))
    assert found.scattered
    assert found.shards > 3
