"""What goes on when NAT is gone: everything about files, as a command and as a library."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# As if NAT was not installed.
WITHOUT = "import sys; sys.modules['nat'] = None\n"
COMMAND = f"{WITHOUT}from nat_dpo_pipeline.cli import dpo\ndpo(prog_name='nat-dpo')"


def _run(folder: Path, code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of both sides."""
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "recorded.jsonl"
    rows = [
        {"example_id": f"e{one}", "turn_id": "t", "prompt": f"q{one}", "response": f"{one} {place}", "score": place}
        for one in range(30)
        for place in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_candidates_become_a_dataset_that_is_looked_at_exported_and_reported(tmp_path: Path, recorded: Path) -> None:
    (tmp_path / "rules.yml").write_text("strategy: best_vs_second\n")
    done = _run(tmp_path, COMMAND, "pairs", recorded, "-o", "pairs", "--rules", "rules.yml", "-f", "trl", "-f", "helix")
    assert (done.returncode, done.stderr) == (0, "")
    rows = _rows(tmp_path / "pairs" / "trl")
    assert [(row["chosen_score"], row["rejected_score"]) for row in rows] == [(2.0, 1.0)] * 30
    for words in (("inspect", "pairs/trl"), ("report", "pairs"), ("export", "pairs", "-f", "openai", "-o", "again")):
        done = _run(tmp_path, COMMAND, *words)
        assert (done.returncode, done.stderr) == (0, ""), words
    assert (tmp_path / "pairs" / "report.html").stat().st_size > 10_000
    assert len(_rows(tmp_path / "again" / "openai")) == 30


def test_what_needs_nat_says_so_in_a_line(tmp_path: Path) -> None:
    config = ROOT / "configs" / "demo.yml"
    for words in (("generate", "--config_file", config), ("pairs", config, "-o", "out", "--rules", config)):
        done = _run(tmp_path, COMMAND, *words)
        assert done.returncode == 1
        assert done.stderr == "Error: this command needs the NeMo Agent Toolkit: pip install nvidia-nat\n"


@pytest.mark.usefixtures("recorded")
def test_the_guide_shows_a_library_that_needs_no_nat(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "after_nat.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    done = _run(tmp_path, WITHOUT + code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == code.rsplit("# ", 1)[1].strip()
    assert len(_rows(tmp_path / "pairs" / "trl")) == 30
