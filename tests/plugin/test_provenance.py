import json
from pathlib import Path

import pytest
from nat.data_models.common import OptionalSecretStr
from nat.data_models.config import Config
from nat.data_models.finetuning import FinetuneConfig, FinetuneRunConfig
from nat.data_models.function import FunctionBaseConfig
from nat.data_models.llm import LLMBaseConfig
from pydantic import BaseModel, ConfigDict, SecretStr

from nat_dpo_pipeline.plugin.finetuning_config import (
    DatasetTrainerAdapterConfig,
    DPOTrainerConfig,
    DPOTrajectoryBuilderConfig,
)
from nat_dpo_pipeline.plugin.provenance import configuration_of
from nat_dpo_pipeline.redacted import redacted

SECRET = "sk-do-not-write-me-down"


class PaidModelConfig(LLMBaseConfig, name="paid_model_of_a_test"):
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model_name: str
    api_key: OptionalSecretStr = None
    temperature: float | None = None
    base_url: str | None = None


class SearchingWorkflowConfig(FunctionBaseConfig, name="searching_workflow_of_a_test"):
    api_key: str
    max_tokens: int = 100
    depth: int = 2


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "API_KEY",
        "apikey",
        "nvidia_api_key",
        "api_keys",
        "access_key",
        "secret",
        "client_secret",
        "token",
        "hf_token",
        "access_token",
        "password",
        "db_password",
        "credentials",
        "Authorization",
        "headers",
        "extra_headers",
        "cookie",
    ],
)
@pytest.mark.parametrize("value", [SECRET, {"inner": SECRET}, [SECRET]])
def test_values_under_the_names_of_secrets_are_left_out(name: str, value: object) -> None:
    assert redacted({name: value, "topic": "Heaps"}) == {name: "***", "topic": "Heaps"}
    assert redacted([{"deep": ({name: value},)}]) == [{"deep": [{name: "***"}]}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 1024),
        ("prompt_key", "prompt"),
        ("candidates_key", "candidates"),
        ("tokenizer", "llama"),
        ("keyword", "heap"),
        ("api_key", None),
        ("monkey", "Coco"),
    ],
)
def test_settings_that_are_no_secrets_stay(name: str, value: object) -> None:
    assert redacted({name: value}) == {name: value}


def test_secrets_of_pydantic_are_left_out_wherever_they_are() -> None:
    class Model(BaseModel):
        model_config = ConfigDict(extra="allow")

        harmless_name: SecretStr
        nested: list[SecretStr]

    model = Model.model_validate({"harmless_name": SECRET, "nested": [SECRET], "api_key": SECRET, "seed": 3})
    assert redacted(model) == {"harmless_name": "***", "nested": ["***"], "api_key": "***", "seed": 3}


def test_other_values_become_json_values() -> None:
    value = {"path": Path("a/b"), 3: (1, 2.5, True, None), "set": {"one"}}
    expected = {"path": "a/b", "3": [1, 2.5, True, None], "set": ["one"]}
    assert redacted(value) == expected
    assert json.loads(json.dumps(redacted(value))) == expected


def test_of_an_llm_entry_only_what_says_how_it_answers_is_kept(tmp_path: Path) -> None:
    llm = PaidModelConfig.model_validate(
        {"model_name": "m", "api_key": SECRET, "temperature": 0.5, "base_url": SECRET, "default_headers": {"x": SECRET}}
    )
    sections = {
        "llms": {"writer": llm},
        "workflow": SearchingWorkflowConfig(api_key=SECRET),
        "trajectory_builders": {"pairs": DPOTrajectoryBuilderConfig()},
        "trainers": {"trainer": DPOTrainerConfig(seed=4)},
    }
    config = Config().model_copy(update=sections)
    finetuning = FinetuneConfig(enabled=True, trainer="trainer", trajectory_builder="pairs", trainer_adapter="dataset")
    finetuning.run_configuration = FinetuneRunConfig(config_file=config)
    facts = configuration_of(finetuning, DatasetTrainerAdapterConfig(output_dir=tmp_path))
    assert facts["llms"] == {"writer": {"type": "paid_model_of_a_test", "model_name": "m", "temperature": 0.5}}
    workflow = facts["workflow"]
    assert isinstance(workflow, dict)
    assert (workflow["api_key"], workflow["max_tokens"], workflow["depth"]) == ("***", 100, 2)
    assert set(facts) == {"trainer_adapter", "workflow", "llms", "trajectory_builder", "trainer"}
    assert SECRET not in json.dumps(facts)


@pytest.mark.parametrize("run", [None, FinetuneRunConfig(config_file=Path("config.yml"))])
def test_without_a_configuration_object_the_adapters_is_all_there_is(
    tmp_path: Path, run: FinetuneRunConfig | None
) -> None:
    finetuning = FinetuneConfig()
    finetuning.run_configuration = run
    assert set(configuration_of(finetuning, DatasetTrainerAdapterConfig(output_dir=tmp_path))) == {"trainer_adapter"}
