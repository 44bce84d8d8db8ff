import json
from pathlib import Path

import pytest
from pydantic import SecretStr

from nat_dpo_pipeline.errors import ConfigurationError, InputError
from nat_dpo_pipeline.plugin.finetuning.saved_job import SavedJob, read_saved_job
from nat_dpo_pipeline.plugin.finetuning_config import (
    JobAdapterConfig,
    NeMoCustomizerTrainerAdapterConfig,
    OpenAITrainerAdapterConfig,
    TrlTrainerAdapterConfig,
)
from nat_dpo_pipeline.plugin.nat_api import TrainingJobRef
from nat_dpo_pipeline.trainers.trl.settings import LoraSettings

REF = TrainingJobRef(run_id="run", backend="trl", metadata={"job_id": "run", "folder": "there"})
CONFIGS = (
    TrlTrainerAdapterConfig(model="tiny", output_dir=Path("out"), lora=LoraSettings(r=4), loss_type=["ipo"], beta=0.3),
    OpenAITrainerAdapterConfig(model="m", base_url="http://localhost:1/v1", n_epochs=2, timeout=9.0),
    NeMoCustomizerTrainerAdapterConfig(
        entity_host="http://a", datastore_host="http://b", namespace="ns", customization_config="meta/m@v1"
    ),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_what_was_written_is_read_again(tmp_path: Path, config: JobAdapterConfig) -> None:
    SavedJob.of(REF, config).write(tmp_path)
    saved = read_saved_job(tmp_path)
    assert saved.ref == REF
    assert type(saved.config()) is type(config)
    assert saved.config().model_dump() == config.model_dump()


def test_every_adapter_has_a_back_end() -> None:
    assert {config.backend().name for config in CONFIGS} == {"trl", "openai", "nemo-customizer"}


def test_secrets_are_not_on_record_and_their_names_are(tmp_path: Path) -> None:
    config = OpenAITrainerAdapterConfig(
        model="m", api_key=SecretStr("sk-planted"), extra_body={"token": "sk-planted", "x": 1}
    )
    SavedJob.of(REF, config).write(tmp_path)
    assert "sk-planted" not in (tmp_path / "training_job.json").read_text()
    assert set(read_saved_job(tmp_path).left_out) == {"api_key", "extra_body"}


def test_settings_that_do_not_hold_are_told_with_what_is_missing() -> None:
    saved = SavedJob(REF, "openai_trainer_adapter", {"base_url": "http://a"}, ("api_key",))
    with pytest.raises(
        ConfigurationError,
        match=r"\(api_key is not on record: give --config_file\): openai_trainer_adapter\.model: Field required$",
    ):
        saved.config()
    with pytest.raises(ConfigurationError, match=r"trainer adapter 'other' is none of .*trl_trainer_adapter"):
        SavedJob(REF, "other", {}).config()


def test_a_folder_without_a_job_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no training_job\.json: give the finetuning\.output_dir"):
        read_saved_job(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"job": {}, "trainer_adapter": "", "settings": {}})])
def test_a_file_that_is_no_job_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "training_job.json").write_text(text)
    with pytest.raises(InputError, match="does not describe a training job"):
        read_saved_job(tmp_path)
