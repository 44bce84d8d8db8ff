import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.data_models.config import Config
from nat.data_models.finetuning import FinetuneConfig
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.plugin.finetuning.job_adapter import BackendTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning_config import OpenAITrainerAdapterConfig
from nat_dpo_pipeline.plugin.register import job_trainer_adapter
from nat_dpo_pipeline.redacted import redacted

GUIDE = (Path(__file__).parents[2] / "docs" / "train_openai.md").read_text(encoding="utf-8")
MODEL = "gpt-4.1-mini-2025-04-14"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def _config(**settings: Any) -> OpenAITrainerAdapterConfig:
    return OpenAITrainerAdapterConfig(model=MODEL, **settings)


def test_without_settings_all_is_left_to_openai() -> None:
    settings = _config()
    assert settings.address == "https://api.openai.com/v1"
    assert settings.key == ""
    assert settings.hyperparameters() == dict.fromkeys(
        ("beta", "n_epochs", "batch_size", "learning_rate_multiplier"), "auto"
    )


def test_settings_reach_the_back_end() -> None:
    given = {
        "suffix": "mine",
        "min_rows": 3,
        "delete_files": True,
        "request_timeout": 5.0,
        "extra_body": {"trainingType": "globalStandard"},
    }
    hyperparameters = {"beta": 0.1, "n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 0.5}
    settings = _config(**given, **hyperparameters)
    assert {name: getattr(settings, name) for name in given} == given
    assert settings.hyperparameters() == hyperparameters


def test_the_environment_stands_in_for_address_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://env/v1")
    assert (_config().key, _config().address) == ("sk-env", "http://env/v1")
    own = _config(api_key="sk-own", base_url="http://own/v1")
    assert (own.key, own.address) == ("sk-own", "http://own/v1")


def test_the_key_is_never_shown() -> None:
    config = _config(api_key="sk-mine")
    assert "sk-mine" not in f"{config!r} {config.model_dump()} {config.model_dump_json()} {redacted(config)}"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"beta": 0}, "beta"),
        ({"beta": float("inf")}, "beta"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"n_epochs": 1.5}, "n_epochs"),
        ({"batch_size": "all"}, "batch_size"),
        ({"learning_rate_multiplier": -1}, "learning_rate_multiplier"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"suffix": ""}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"min_rows": 0}, "min_rows"),
        ({"request_timeout": 0}, "request_timeout"),
        ({"model": ""}, "model"),
        ({"extra_body": {"metadata": {}}}, "extra_body may not hold 'metadata', which the adapter sets"),
        ({"extra_body": {"training_file": "file-1"}}, "extra_body may not hold 'training_file'"),
        ({"epochs": 2}, "openai_trainer_adapter has no 'epochs'; did you mean 'n_epochs'?"),
    ],
)
def test_what_cannot_be_is_refused_in_words(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        OpenAITrainerAdapterConfig.model_validate({"model": MODEL, **settings})


async def test_a_missing_key_is_told_when_the_adapter_is_initialized_and_not_when_it_is_built(
    run_config: FinetuneConfig,
) -> None:
    async for adapter in job_trainer_adapter(_config(), builder=None):  # type: ignore[arg-type]  # not used
        assert isinstance(adapter, BackendTrainerAdapter)
        assert not await adapter.is_healthy()
        with pytest.raises(ConfigurationError, match="needs a key: set OPENAI_API_KEY or api_key"):
            await adapter.initialize(run_config)


def _in_config(adapter: dict[str, Any]) -> Config:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    return validate_schema({"workflow": {"_type": "scored_candidates"}, "trainer_adapters": {"own": adapter}}, Config)


def _shown() -> list[dict[str, Any]]:
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)]
    return [adapter for block in blocks for adapter in block["trainer_adapters"].values()]


@pytest.mark.parametrize("adapter", _shown(), ids=lambda adapter: adapter.get("model"))
def test_what_the_guide_shows_is_valid(adapter: dict[str, Any]) -> None:
    (read,) = _in_config(adapter).trainer_adapters.values()
    assert isinstance(read, OpenAITrainerAdapterConfig)
    assert read.model == adapter["model"]


def test_the_guide_names_every_setting() -> None:
    own = set(OpenAITrainerAdapterConfig.model_fields) - {"reward", "type"}
    assert {name for name in own if f"`{name}`" not in GUIDE} == set()
