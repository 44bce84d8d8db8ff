"""`nat finetune` with the adapter, as a user starts it. Runs where trl is installed: `make training`."""

import json
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs torch and trl: make training")

from tests.commands import Done, run_nat

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _finetune(folder: Path, *overrides: tuple[str, str]) -> Done:
    (folder / "configs").symlink_to(ROOT / "configs")
    given = [word for name, value in overrides for word in ("-o", name, value)]
    return run_nat(folder, "finetune", "--config_file", "configs/train_local.yml", *given)


def test_nat_finetune_trains_a_model(tmp_path: Path) -> None:
    """With fewer questions than the demo has, so that it takes less long."""
    done = _finetune(tmp_path, ("workflow.n_questions", "3"), ("trainer_adapters.local.epochs", "1"))
    assert done.code == 0, done.said
    (job,) = (tmp_path / "runs" / "train_local" / "training").iterdir()
    result = json.loads((job / "result.json").read_text())
    assert result["sentence"] in done.said
    assert result["figures"]["held_out_margin_after"] > result["figures"]["held_out_margin_before"]
    assert (job / "model" / "model.safetensors").is_file()
    assert (job / "report.html").is_file()
    assert not (job / "checkpoints").exists()
    told = run_nat(tmp_path, "dpo", "status", "runs/train_local/run")
    assert told.code == 0
    assert result["sentence"] in told.output


def test_a_setting_that_trl_would_refuse_late_is_refused_at_once(tmp_path: Path) -> None:
    done = _finetune(tmp_path, ("trainer_adapters.local.beta", "0"))
    assert done.code != 0
    assert "beta is 0.0: it must be above 0" in done.said
    assert not (tmp_path / "runs").exists()
