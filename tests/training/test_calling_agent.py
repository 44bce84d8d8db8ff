"""The agent that calls tools solves held-out tasks after its training. Runs where trl is installed: `make training`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import commands
from tests.own_module import run_nat

pytest.importorskip("trl", reason="needs torch and trl: make training")

ROOT = Path(__file__).parents[2]
AGENT = "examples/calling_agent/agent.py"


def _agent(place: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, AGENT, *arguments], cwd=place, capture_output=True, text=True, check=True,
        env=commands.environment(place),
    )  # fmt: skip
    return done.stdout


def test_it_solves_tasks_that_it_could_not_solve_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    _agent(tmp_path, "record", "runs/calling_agent/rollouts.jsonl")
    run_nat(tmp_path, "finetune", "--config_file", "examples/calling_agent/train.yml")
    (job,) = (tmp_path / "runs" / "calling_agent" / "training").iterdir()
    said = _agent(tmp_path, "play", str(job))
    found = re.match(
        r"success on 22 held-out tasks: (.*) before, (.*) after; (\d+) better, (\d+) worse \(sign test: (.*)\)", said
    )
    assert found is not None, said
    before, after, better, worse, chance = map(float, found.groups())
    assert (after - before, better) > (0.4, worse)
    assert chance < 0.01
