from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.trainers.backend import TrainingData
from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend
from nat_dpo_pipeline.trainers.nemo.http import Requests
from nat_dpo_pipeline.trainers.nemo.settings import NemoSettings
from tests.servers.nemo import CONFIG, NemoService, serving_nemo


@pytest.fixture
def nemo() -> Iterator[NemoService]:
    """NeMo Microservices in a thread of their own."""
    with serving_nemo() as service:
        yield service


@pytest.fixture
def make_backend(nemo: NemoService) -> Callable[..., NemoCustomizerBackend]:
    """A back end over that service; settings are those of NemoSettings."""

    def make(**settings: Any) -> NemoCustomizerBackend:
        given = {
            "entity_host": nemo.url,
            "datastore_host": nemo.url,
            "namespace": "ns",
            "customization_config": CONFIG,
            "hyperparameters": {"training_type": "dpo", "finetuning_type": "lora", "epochs": 2},
            **settings,
        }
        return NemoCustomizerBackend(NemoSettings(**given), Requests(retry_pause=0.001))

    return make


@pytest.fixture
def make_data() -> Callable[..., TrainingData]:
    """Three pairs to train on and one that is held out, of a run that can be named."""

    def make(run_id: str = "dpo_1", *, seed: int = 7, **splits: list[PreferenceRow]) -> TrainingData:
        given = {SplitName(name): rows for name, rows in splits.items()} or {
            SplitName.TRAIN: [PreferenceRow(f"Why {number}?", f"So {number}.", "No.") for number in range(3)],
            SplitName.VALIDATION: [PreferenceRow("Why not?", "Because.", "No.")],
        }
        return TrainingData(run_id, given, seed)

    return make
