"""Run folders as `nat dpo generate` writes them, made here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]


def candidate(index: int, response: str, score: float, llm: str = "writer", **more: Any) -> Row:
    return {
        "candidate_index": index,
        "response": response,
        "score": score,
        "attributes": {},
        "model": f"{llm}/1",
        "llm": llm,
        "reward_model": "judge",
        "flaw": None,
        **more,
    }


def row(place: int, *candidates: Row, subtopic: str = "Letters", prompt: Any = None, **more: Any) -> Row:
    return {
        "id": f"text/question-{place}",
        "example_id": "text",
        "turn_id": f"question-{place}",
        "topic": "Text",
        "subtopic": subtopic,
        "prompt": [{"role": "user", "content": f"Question {place}?"}] if prompt is None else prompt,
        "candidates": list(candidates),
        "unscored": [],
        **more,
    }


def scored(place: int, *scores: float, llm: str = "writer") -> Row:
    """A row whose candidates say their score."""
    return row(place, *(candidate(index, f"{score} to {place}", score, llm) for index, score in enumerate(scores)))


def write_run(
    folder: Path,
    rows: Sequence[Row],
    *,
    set_aside: Sequence[Row] = (),
    builder: Row | None = None,
    sides: Row | None = None,
    **manifest: Any,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "candidates.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    if set_aside:
        (folder / "set_aside.jsonl").write_text("".join(json.dumps(one) + "\n" for one in set_aside))
    facts = {"generator": "nat-dpo-pipeline", "status": "complete", "skipped": {}, "spending": [], "cost": None}
    (folder / "manifest.json").write_text(json.dumps({**facts, **manifest}))
    if builder is not None or sides is not None:
        (folder / "dataset").mkdir(exist_ok=True)
        configuration = {} if builder is None else {"trajectory_builder": {"type": "dpo_traj_builder", **builder}}
        dataset = {"generator": "nat-dpo-pipeline", "configuration": configuration, "counts": sides or {}}
        (folder / "dataset" / "manifest.json").write_text(json.dumps(dataset))
    return folder


class Runs:
    """Makes rows and run folders."""

    candidate = staticmethod(candidate)
    row = staticmethod(row)
    scored = staticmethod(scored)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, *rows: Row, **more: Any) -> Path:
        return write_run(self.folder, rows, **more)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "run")
