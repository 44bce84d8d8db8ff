"""The configuration of NVIDIA's trainer and adapter means the same in ours."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.plugins.customizer.dpo import config as theirs
from nat.runtime.loader import load_config
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from nat_dpo_pipeline.plugin import finetuning_config
from nat_dpo_pipeline.trainers.nemo import settings

MODELS = [
    finetuning_config.NeMoCustomizerTrainerConfig,
    finetuning_config.NeMoCustomizerTrainerAdapterConfig,
    settings.NeMoCustomizerHyperparameters,
    settings.DPOSpecificHyperparameters,
    settings.NIMDeploymentConfig,
]
# The whole history is kept unless a configuration says otherwise.
DIFFERENT = {"use_full_message_history": (True, False)}
COMPLETE = """
workflow:
  _type: scored_candidates
trainers:
  theirs: &trainer
    _type: nemo_customizer_trainer
    num_runs: 3
    continue_on_collection_error: true
    deduplicate_pairs: false
    max_pairs: 5000
    wait_for_completion: false
  ours:
    <<: *trainer
    _type: dpo_nemo_customizer_trainer
trainer_adapters:
  theirs: &adapter
    _type: nemo_customizer_trainer_adapter
    entity_host: https://nmp.example.com/
    datastore_host: https://datastore.example.com
    hf_token: hf_secret
    namespace: my-dpo-project
    dataset_name: dpo-training-data
    dataset_output_dir: .tmp/datasets
    create_namespace_if_missing: false
    customization_config: meta/llama-3.2-1b-instruct@v1.0.0+A100
    hyperparameters:
      training_type: sft
      finetuning_type: lora
      epochs: 5
      batch_size: 8
      learning_rate: 5e-6
      dpo:
        ref_policy_kl_penalty: 0.2
        preference_loss_weight: 0.9
        preference_average_log_probs: true
        sft_loss_weight: 0.1
    use_full_message_history: false
    deploy_on_completion: true
    deployment_config:
      image_name: nvcr.io/nim/meta/llama
      image_tag: "1.2"
      gpu: 2
      deployment_name: mine
      description: Ours
    poll_interval_seconds: 12.5
    deployment_timeout_seconds: 600
    max_consecutive_status_failures: 5
  ours:
    <<: *adapter
    _type: dpo_nemo_customizer_trainer_adapter
"""


def _default(model: type[BaseModel], name: str) -> Any:
    field = model.model_fields[name]
    return _plain(PydanticUndefined if field.is_required() else field.get_default(call_default_factory=True))


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize("our", MODELS)
def test_fields_and_defaults_are_nvidias(our: type[BaseModel]) -> None:
    their = getattr(theirs, our.__name__)
    assert our.model_fields.keys() >= their.model_fields.keys()
    differing = {
        field: (_default(our, field), _default(their, field))
        for field in their.model_fields
        if _default(our, field) != _default(their, field)
    }
    assert differing == {field: values for field, values in DIFFERENT.items() if field in their.model_fields}


@pytest.mark.parametrize("section", ["trainers", "trainer_adapters"])
def test_nvidias_yaml_is_read_as_nvidia_reads_it(tmp_path: Path, section: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(COMPLETE, encoding="utf-8")
    entries = getattr(load_config(file), section)
    our, their = entries["ours"], entries["theirs"]
    assert type(their).__module__ == theirs.__name__
    assert type(our).__module__ == finetuning_config.__name__
    given = set(yaml.safe_load(COMPLETE)[section]["theirs"]) - {"_type"}
    assert given == set(type(their).model_fields) - {"type", "reward"}, "the YAML is to be complete"
    assert {name: _plain(getattr(our, name)) for name in given} == {
        name: _plain(getattr(their, name)) for name in given
    }
