"""What a user says of a dataset reaches its card on every road."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from nat_dpo_pipeline.cli import dpo

ROOT = Path(__file__).parents[2]
SAID = ("--license", "cc-by-4.0", "--title", "Tea", "--language", "en", "--language", "de")
ON_THE_CARD = {"license": "cc-by-4.0", "pretty_name": "Tea", "language": ["en", "de"]}


def _run(*words: object) -> None:
    done = CliRunner().invoke(dpo, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def _card(folder: Path) -> dict[str, Any]:
    metadata = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    return {name: metadata.get(name) for name in ON_THE_CARD}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    rows = [
        {"example_id": f"e{one}", "turn_id": "t", "prompt": f"q{one}", "response": f"{rank}", "score": rank}
        for one in range(9)
        for rank in range(3)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("engine", ["memory", "local"])
def test_pairs(recorded: Path, tmp_path: Path, engine: str) -> None:
    words = ("pairs", recorded, "-o", tmp_path / "out", "--engine", engine)
    _run(*words, *SAID)
    assert _card(tmp_path / "out") == ON_THE_CARD
    assert "recorded elsewhere" in (tmp_path / "out" / "README.md").read_text()
    _run(*words, "--title", "Coffee")
    assert _card(tmp_path / "out") == {"license": "unknown", "pretty_name": "Coffee", "language": None}


def test_export_of_pairs(recorded: Path, tmp_path: Path) -> None:
    _run("pairs", recorded, "-o", tmp_path / "pairs", *SAID)
    _run("export", tmp_path / "pairs", "-f", "hh", "-o", tmp_path / "out")
    assert _card(tmp_path / "out") == ON_THE_CARD
    _run("export", tmp_path / "pairs", "-f", "hh", "-o", tmp_path / "out", "--license", "mit")
    assert _card(tmp_path / "out") == {**ON_THE_CARD, "license": "mit"}


def test_generate_and_export_of_its_run(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    config["workflow"] |= {"n_subtopics": 2, "n_questions": 2, "n_responses": 2}
    (adapter,) = config["trainer_adapters"].values()
    adapter |= {"license": "cc-by-4.0", "title": "Tea", "languages": ["en", "de"]}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    run = tmp_path / "run"
    _run("generate", "--config_file", tmp_path / "config.yml", "-o", run, "--topic", "Text")
    assert _card(run / "dataset") == ON_THE_CARD
    _run("export", run, "-f", "hh", "-o", tmp_path / "out")
    assert _card(tmp_path / "out") == ON_THE_CARD
