import json
from pathlib import Path

import numpy as np
import pytest
from nat.data_models.finetuning import TrainingJobRef

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.plugin.finetuning.dataset_adapter import DatasetTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning.progress import append_progress
from nat_dpo_pipeline.plugin.finetuning.trainer import DPOTrainer
from nat_dpo_pipeline.plugin.finetuning_config import DatasetTrainerAdapterConfig, DPOTrainerConfig


def test_a_loss_that_a_library_computed_is_a_number(tmp_path: Path) -> None:
    entry = {"loss": np.array(0.5), "margin": np.float32(2.0), "grad_norm": np.array(np.nan), "steps": np.int64(3)}
    append_progress("run.jsonl", entry, str(tmp_path), None)
    assert json.loads((tmp_path / "run.jsonl").read_text()) == {
        "loss": 0.5,
        "margin": 2.0,
        "grad_norm": None,
        "steps": 3,
    }


def test_a_line_is_appended(tmp_path: Path) -> None:
    for step in range(2):
        append_progress("run_1.jsonl", {"step": step}, str(tmp_path), None)
    lines = (tmp_path / "run_1.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 0}, {"step": 1}]


@pytest.mark.parametrize("name", ["../x.jsonl", "/tmp/x.jsonl", "a/b.jsonl", "..", "", "a\0.jsonl", "é" * 200])
def test_a_name_that_leaves_the_folder_or_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the name of a file"):
        append_progress(name, {}, str(tmp_path / "in"), None)
    assert list(tmp_path.iterdir()) == []


def test_progress_before_initialize_is_one_line_that_says_so(tmp_path: Path) -> None:
    adapter = DatasetTrainerAdapter(DatasetTrainerAdapterConfig(output_dir=tmp_path / "out"))
    with pytest.raises(ConfigurationError, match="call initialize first, or give output_dir"):
        adapter.log_progress(TrainingJobRef(run_id="1", backend="dataset"), {})
    trainer = DPOTrainer(DPOTrainerConfig())
    with pytest.raises(ConfigurationError, match="call initialize first, or give output_dir"):
        trainer.log_progress(0, {})
    trainer.log_progress(0, {"loss": 1.0}, str(tmp_path))
    (line,) = (tmp_path / "data_collection_progress.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == 1.0
