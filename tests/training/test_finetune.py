"""`nat finetune` with the adapter, as a user starts it. Runs where trl is installed: `make training`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="needs torch and trl: make training")

ROOT = Path(__file__).parents[2]
NAT = Path(sys.executable).with_name("nat")


def _finetune(folder: Path, *overrides: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "configs").symlink_to(ROOT / "configs")
    given = [word for name, value in overrides for word in ("-o", name, value)]
    return _nat(folder, "finetune", "--config_file", "configs/train_local.yml", *given)


def _nat(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(NAT), *arguments],
        cwd=folder,
        env={**os.environ, "NAT_TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=280,
        check=False,
    )


def test_nat_finetune_trains_a_model(tmp_path: Path) -> None:
    """With fewer questions than the demo has, so that it takes less long."""
    done = _finetune(tmp_path, ("workflow.n_questions", "3"), ("trainer_adapters.local.epochs", "1"))
    assert done.returncode == 0, done.stderr
    (job,) = (tmp_path / "runs" / "train_local" / "training").iterdir()
    result = json.loads((job / "result.json").read_text())
    assert result["sentence"] in done.stderr + done.stdout
    assert result["figures"]["held_out_margin_after"] > result["figures"]["held_out_margin_before"]
    assert (job / "model" / "model.safetensors").is_file()
    assert (job / "report.html").is_file()
    assert not (job / "checkpoints").exists()
    told = _nat(tmp_path, "dpo", "status", "runs/train_local/run")
    assert told.returncode == 0
    assert result["sentence"] in told.stdout


def test_a_setting_that_trl_would_refuse_late_is_refused_at_once(tmp_path: Path) -> None:
    done = _finetune(tmp_path, ("trainer_adapters.local.beta", "0"))
    assert done.returncode != 0
    assert "beta is 0.0: it must be above 0" in done.stderr + done.stdout
    assert not (tmp_path / "runs").exists()
