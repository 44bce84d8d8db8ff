"""The worked example, as its README says to run it."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.own_module import run_nat

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tool_agent"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example in it, which is installed there as pip would: its module, and its entry points."""
    folder = tmp_path_factory.mktemp("tool_agent")
    shutil.copytree(EXAMPLE, folder / "examples" / "tool_agent")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    about = folder / "installed" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (about / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )
    shutil.copy(EXAMPLE / "tool_agent.py", folder / "installed")
    return folder


def _nat(place: Path, *arguments: str) -> str:
    return run_nat(place, *arguments, modules=(place / "installed",))


@pytest.fixture(scope="module")
def finetuned(place: Path) -> tuple[str, list[dict[str, Any]]]:
    """What `nat finetune` said, and the rows of its dataset."""
    output = _nat(place, "finetune", "--config_file", "examples/tool_agent/config.yml")
    files = (place / "runs" / "tool_agent" / "dataset" / "trl").glob("*.jsonl")
    return output, [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_an_evaluation_of_the_agent_gives_a_dataset(finetuned: tuple[str, list[dict[str, Any]]]) -> None:
    output, rows = finetuned
    questions = {row["id"]: row["question"] for row in json.loads((EXAMPLE / "questions.json").read_text())}
    assert f"candidates            {4 * len(questions)}" in output
    assert f"turns                 {len(questions)}" in output
    assert {row["example_id"] for row in rows} == set(questions)
    for row in rows:
        assert row["chosen_score"] >= row["rejected_score"] + 0.1
        assert row["chosen"] != row["rejected"]
        system, user = row["prompt"]
        assert user == {"role": "user", "content": questions[row["example_id"]]}
        # What the tool found is what the model saw, and nobody else.
        assert f"documentation:\n\n{row['example_id'].replace('-', '.')}" in system["content"]


def test_a_run_answers_with_the_best(place: Path, finetuned: tuple[str, list[dict[str, Any]]]) -> None:
    question = "What does `heapq.nlargest` do?"
    output = _nat(place, "run", "--config_file", "examples/tool_agent/config.yml", "--input", question)
    answers = [row for row in finetuned[1] if row["prompt"][1]["content"] == question]
    best = max(answers, key=lambda row: row["chosen_score"])["chosen"][0]["content"]
    assert best.splitlines()[0] in output
    assert min(answers, key=lambda row: row["rejected_score"])["rejected"][0]["content"] not in output
