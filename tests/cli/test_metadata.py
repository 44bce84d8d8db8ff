"""Metadata that are no object cost no candidate, whoever wrote them and whatever pairs them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nat_dpo_pipeline.cli import dpo

PLACES = [(question, rank) for question in range(4) for rank in range(3)]


def _step(question: int, rank: int, metadata: object) -> dict[str, Any]:
    data = {"turn_id": f"t{question}", "score": rank, "input": f"Q{question}", "output": f"A{rank}"}
    payload = {
        "event_type": "TTC_END",
        "event_timestamp": 1.0,
        "name": "dpo_candidate_move",
        "metadata": metadata,
        "data": {**data, "candidate_index": rank},
        "UUID": f"{question}-{rank}",
    }
    ancestry = {"function_id": "f", "function_name": "f", "parent_id": None, "parent_name": None}
    return {"parent_id": "root", "function_ancestry": ancestry, "payload": payload}


def _flat(question: int, rank: int, metadata: object, score: str = "score") -> dict[str, Any]:
    return {"prompt": f"Q{question}", "response": f"A{rank}", score: rank, "metadata": metadata}


def _turn(question: int, metadata: object) -> dict[str, Any]:
    return {
        "example_id": f"e{question}",
        "turn_id": "t",
        "prompt": f"Q{question}",
        "metadata": metadata,
        "candidates": [{"response": f"A{rank}", "score": rank, "metadata": metadata} for rank in range(3)],
    }


def _mark(question: int, rank: int, metadata: object) -> dict[str, Any]:
    data = {"turn_id": f"t{question}", "input": f"Q{question}", "output": f"A{rank}", "score": rank}
    return {
        "atof_version": "0.1",
        "kind": "mark",
        "uuid": f"{question}-{rank}",
        "parent_uuid": None,
        "name": "dpo_candidate_move",
        "metadata": metadata,
        "data": {**data, "metadata": metadata},
    }


def _gym(question: int, rank: int, metadata: object) -> dict[str, Any]:
    answer = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"A{rank}"}]}
    return {
        "responses_create_params": {"input": f"Q{question}", "metadata": metadata},
        "response": {"output": [answer], "metadata": metadata},
        "reward": float(rank),
        "metadata": metadata,
    }


RECORDS = {
    "flat rows": lambda metadata: [{"example_id": f"e{q}", "turn_id": "t", **_flat(q, n, metadata)} for q, n in PLACES],
    "rollout rows": lambda metadata: [_flat(*place, metadata, "reward") for place in PLACES],
    "turn rows": lambda metadata: [_turn(question, metadata) for question in range(4)],
    "file exporter": lambda metadata: [_step(*place, metadata) for place in PLACES],
    "ATOF": lambda metadata: [_mark(*place, metadata) for place in PLACES],
    "NeMo Gym": lambda metadata: [_gym(*place, metadata) for place in PLACES],
}


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("metadata", ["a text", 3, ["a", 1]], ids=["text", "number", "list"])
def test_metadata_that_are_no_object_cost_no_candidate(tmp_path: Path, kind: str, metadata: object) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "out"
    file.write_text("".join(json.dumps(row) + "\n" for row in RECORDS[kind](metadata)))
    _pairs_all(file, out, "memory")
    # What the command left is read again.
    for words in (("report", str(out)), ("export", str(out), "-f", "hh", "-o", str(tmp_path / "hh"))):
        done = CliRunner().invoke(dpo, words)
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize("kind", ["flat rows", "turn rows"])
def test_in_shards_as_well(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in RECORDS[kind]("a text")))
    _pairs_all(file, tmp_path / "out", "local")


def _pairs_all(file: Path, out: Path, engine: str) -> None:
    done = CliRunner().invoke(dpo, ["pairs", str(file), "-o", str(out), "--engine", engine])
    assert done.exit_code == 0, done.output
    counts = json.loads((out / "manifest.json").read_bytes())["counts"]
    assert counts["train_pairs"] + counts["validation_pairs"] == len(PLACES)
