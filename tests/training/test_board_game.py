"""The worked example with a model that learns from it. Runs where trl is installed: `make training`."""

import json
from pathlib import Path

import pytest

from tests.own_module import install_project, run_nat

pytest.importorskip("trl", reason="needs torch and trl: make training")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "board_game"


def test_a_model_learns_from_solved_games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a third of the epochs, so that it takes less long."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    install_project(tmp_path, EXAMPLE)
    config = ("--config_file", "examples/board_game/train.yml", "-o", "trainer_adapters.local.epochs", "2")
    told = run_nat(tmp_path, "finetune", *config, modules=(EXAMPLE,))
    (job,) = (tmp_path / "runs" / "board_game_train" / "training").iterdir()
    result = json.loads((job / "result.json").read_text())
    assert result["sentence"] in told
    assert result["training"]["pairs"] == 452
    assert result["figures"]["held_out_margin_after"] > result["figures"]["held_out_margin_before"]
    assert (job / "model" / "model.safetensors").is_file()
