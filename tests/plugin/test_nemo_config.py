from typing import Any

import pytest
from pydantic import ValidationError

from nat_dpo_pipeline.plugin.finetuning_config import (
    NeMoCustomizerTrainerAdapterConfig,
    NeMoCustomizerTrainerConfig,
    SharedNeMoCustomizerTrainerAdapterConfig,
    SharedNeMoCustomizerTrainerConfig,
)
from nat_dpo_pipeline.strict import secret_text
from nat_dpo_pipeline.trainers.nemo.settings import NIMDeploymentConfig
from nat_dpo_pipeline.trainers.settings import Patience

REQUIRED = {
    "entity_host": "https://nmp.example.com/",
    "datastore_host": "https://datastore.example.com",
    "namespace": "ns",
    "customization_config": "meta/llama-3.2-1b-instruct@v1.0.0+A100",
}


def _adapter(**settings: Any) -> NeMoCustomizerTrainerAdapterConfig:
    return NeMoCustomizerTrainerAdapterConfig.model_validate({**REQUIRED, **settings})


def test_the_back_end_is_told_what_was_configured() -> None:
    settings = _adapter(
        hf_token="hf", access_token="nvapi", hyperparameters={"epochs": 5}, output_model="ns/m", description="A try"
    )
    assert settings.entity_host == "https://nmp.example.com"
    assert (secret_text(settings.hf_token), secret_text(settings.access_token)) == ("hf", "nvapi")
    assert (settings.output_model, settings.description, settings.deployment) == ("ns/m", "A try", None)
    assert settings.use_full_message_history
    assert settings.hyperparameters.to_json() == {
        "training_type": "dpo",
        "finetuning_type": "all_weights",
        "epochs": 5,
        "batch_size": 4,
        "learning_rate": 5e-5,
        "dpo": {
            "ref_policy_kl_penalty": 0.1,
            "preference_loss_weight": 1.0,
            "preference_average_log_probs": False,
            "sft_loss_weight": 0.0,
        },
    }


def test_what_is_about_dpo_is_sent_for_dpo_only() -> None:
    settings = _adapter(hyperparameters={"training_type": "sft"})
    assert "dpo" not in settings.hyperparameters.to_json()
    assert settings.hyperparameters.training_type == "sft"


def test_a_deployment_is_configured_when_asked_for() -> None:
    config = {"image_name": "nim", "image_tag": "1", "gpu": 2, "deployment_name": "d", "description": "served"}
    settings = _adapter(deploy_on_completion=True, deployment_config=config)
    assert settings.deployment == NIMDeploymentConfig(**config)


def test_patience_is_nvidias_and_a_time_limit() -> None:
    assert _adapter().patience() == Patience(30.0, None, max_failures=3)
    config = _adapter(poll_interval_seconds=5, timeout=60, max_consecutive_status_failures=7)
    assert config.patience() == Patience(5.0, 60.0, max_failures=7)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"entity_host": "nmp.example.com"}, "entity_host must be like https://host, got 'nmp.example.com'"),
        ({"datastore_host": "https://me:pw@"}, "datastore_host must be like https://host, got ''"),
        ({"hf_token": "hf secret\n"}, "hf_token holds white space"),
        ({"access_token": "sécret"}, "access_token holds white space or other characters"),
        ({"hf_token": ["hf_secret"]}, "hf_token: Input should be a valid string"),
        ({"hyperparameters": {"epoch": 2}}, "has no 'epoch'; did you mean 'epochs'"),
        ({"hyperparameters": {"dpo": {"beta": 1}}}, "has no 'beta'"),
        ({"deployment_config": {"gpus": 2}}, "has no 'gpus'; did you mean 'gpu'"),
        ({"dataset_name": "a/b"}, "dataset_name is 'a/b'"),
        ({"poll_interval": 5}, "did you mean 'poll_interval_seconds'"),
    ],
)
def test_a_mistake_is_told_without_secrets(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as told:
        _adapter(**settings)
    (error,) = told.value.errors()  # NAT shows its message
    assert says in error["msg"]
    assert "secret" not in error["msg"]
    assert "pw" not in error["msg"]


def test_a_variable_that_is_not_set_is_no_token() -> None:
    """NAT reads `${NEMO_HF_TOKEN:-}` as null then."""
    settings = _adapter(hf_token=None, access_token=None)
    assert (secret_text(settings.hf_token), secret_text(settings.access_token)) == ("", "")


def test_tokens_are_not_shown() -> None:
    config = _adapter(hf_token="hf_hidden", access_token="nvapi-hidden")
    assert "hidden" not in repr(config) + config.model_dump_json()


def test_the_trainer_holds_out_nvidias_share() -> None:
    assert NeMoCustomizerTrainerConfig().validation_fraction == 0.2
    assert _adapter().validation_fraction == 0.2


def test_the_shared_names_are_the_same_configurations() -> None:
    shared = (SharedNeMoCustomizerTrainerConfig, SharedNeMoCustomizerTrainerAdapterConfig)
    assert [config.static_type() for config in shared] == ["nemo_customizer_trainer", "nemo_customizer_trainer_adapter"]
    assert shared[0].model_fields.keys() == NeMoCustomizerTrainerConfig.model_fields.keys()
    assert shared[1].model_fields.keys() == NeMoCustomizerTrainerAdapterConfig.model_fields.keys()
