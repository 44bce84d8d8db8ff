import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.strict import checked
from nat_dpo_pipeline.trainers.trl.settings import LOSS_TYPES, Device, LoraSettings, Precision, TrlSettings


def _settings(**given: Any) -> TrlSettings:
    return TrlSettings(**{"model": "tiny", "output_dir": Path("out"), **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": " "}, "model is empty"),
        ({"loss_type": ()}, "loss_type is empty"),
        ({"loss_type": ("sigmoid", "dpo")}, "loss_type 'dpo' is unknown: TRL knows sigmoid, hinge"),
        ({"beta": 0.0}, r"beta is 0\.0: it must be above 0"),
        ({"label_smoothing": 1.0, "loss_type": ("robust",)}, r"label_smoothing is 1\.0"),
        ({"loss_type": ("exo_pair",)}, "exo_pair needs a label_smoothing above 0"),
        ({"loss_type": ("robust",), "label_smoothing": 0.5}, "robust needs a label_smoothing below 0.5"),
        ({"label_smoothing": 0.1}, "sigmoid would ignore it"),
        ({"epochs": 0.0}, "epochs is 0.0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"gradient_accumulation": 0}, "gradient_accumulation is 0"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"save_every": 0}, "save_every is 0"),
        ({"log_every": 0}, "log_every is 0"),
        ({"max_length": 0}, "max_length is 0"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"max_dropped": 1.0}, "max_dropped is 1.0"),
        ({"precision": Precision.FP16, "device": Device.CPU}, "precision is fp16 and device cpu"),
    ],
)
def test_what_trl_would_refuse_late_or_not_at_all_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _settings(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"r": 0}, "lora.r is 0"),
        ({"alpha": 0.0}, "lora.alpha is 0.0"),
        ({"dropout": 1.0}, "lora.dropout is 1.0"),
        ({"target_modules": ()}, "lora.target_modules is empty"),
        ({"target_modules": ("q_proj", "lm_head")}, "lora.target_modules names lm_head"),
    ],
)
def test_what_peft_would_refuse_late_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraSettings(**given)


@given(
    loss=st.sampled_from([loss for loss in LOSS_TYPES if loss not in ("exo_pair", "robust")]),
    precision=st.sampled_from(Precision),
    lora=st.none()
    | st.builds(LoraSettings, r=st.integers(1, 64), target_modules=st.sampled_from(["all-linear", ("q",)])),
    beta=st.floats(0.01, 1.0),
    evaluate_every=st.none() | st.integers(1, 9),
)
def test_settings_survive_json(loss: str, **given: Any) -> None:
    settings = _settings(loss_type=(loss,), **given)
    assert checked(TrlSettings, json.loads(json.dumps(settings.to_json()))) == settings


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="trl_trainer_adapter has no 'bta'; did you mean 'beta'"):
        checked(TrlSettings, {**_settings().to_json(), "bta": 1})
