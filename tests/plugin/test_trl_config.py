"""The settings of local training, and what the guide says of them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.builder.workflow_builder import WorkflowBuilder
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline.plugin.finetuning.job_adapter import BackendTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning_config import TrlTrainerAdapterConfig
from nat_dpo_pipeline.strict import checked
from nat_dpo_pipeline.trainers.trl.local import TrlBackend
from nat_dpo_pipeline.trainers.trl.settings import LOSS_TYPES, LoraSettings, TrlSettings

GUIDE = (Path(__file__).parents[2] / "docs" / "train.md").read_text(encoding="utf-8")
YAML = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]


def _config(**given: Any) -> TrlTrainerAdapterConfig:
    return TrlTrainerAdapterConfig.model_validate({"model": "tiny", "output_dir": "out", **given})


def test_every_setting_can_be_given() -> None:
    given = {
        "loss_type": ["robust", "sft"],
        "beta": 0.2,
        "label_smoothing": 0.1,
        "epochs": 2.5,
        "batch_size": 2,
        "gradient_accumulation": 3,
        "learning_rate": 1e-3,
        "max_length": 99,
        "max_dropped": 0.5,
        "precision": "bf16",
        "device": "cpu",
        "num_threads": 2,
        "gradient_checkpointing": True,
        "save_every": 7,
        "log_every": 8,
        "evaluate_every": 9,
        "lora": {"r": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": ["q_proj"], "merge": False},
    }
    settings = {**given, "model": "tiny", "output_dir": "out"}
    assert _config(**given).to_json() == checked(TrlSettings, settings).to_json() == settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beta": 0}, r"trl_trainer_adapter: beta is 0\.0: it must be above 0"),
        ({"loss_type": "dpo"}, "trl_trainer_adapter: loss_type 'dpo' is unknown"),
        ({"precision": "int8"}, r"trl_trainer_adapter\.precision is 'int8'"),
        ({"lora": {"rank": 4}}, "has no 'rank'"),
        ({"lora": {"target_modules": ["lm_head"]}}, r"lora\.target_modules names lm_head"),
        ({"leraning_rate": 1}, "has no 'leraning_rate'; did you mean 'learning_rate'"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_when_the_configuration_is_read(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _config(**given)


async def test_the_adapter_is_built_over_the_back_end(tmp_path: Path) -> None:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    async with WorkflowBuilder() as builder:
        await builder.add_trainer_adapter("local", _config(output_dir=str(tmp_path)))
        adapter = await builder.get_trainer_adapter("local")
        assert isinstance(adapter, BackendTrainerAdapter)
        assert isinstance(adapter.backend, TrlBackend)


@pytest.mark.parametrize("block", YAML)
def test_the_settings_that_the_guide_shows_are_valid(block: dict[str, Any]) -> None:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    config = validate_schema({"workflow": {"_type": "scored_candidates"}, **block}, Config)
    assert {adapter.type for adapter in config.trainer_adapters.values()} == {"trl_trainer_adapter"}


def test_the_guide_names_every_setting_and_loss() -> None:
    names = {*(set(TrlTrainerAdapterConfig.model_fields) - {"type", "reward"}), *LoraSettings.model_fields, *LOSS_TYPES}
    assert sorted(name for name in names if f"`{name}`" not in GUIDE) == []
