"""Pairs that a tiny model can learn in seconds."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.trainers.backend import TrainingData
from nat_dpo_pipeline.trainers.trl.settings import Device, TrlSettings

_THINGS = [
    first + second
    for first in ("ka", "lo", "mi", "nu", "pe")
    for second in ("bat", "dor", "fin", "gul", "rem", "sok", "tiv")
]
_HELD_OUT = 8
#: `TRAIN_ON=cuda make training` trains on the first GPU, in its own precision.
DEVICE = Device(os.environ.get("TRAIN_ON", "cpu"))


def _row(thing: str) -> PreferenceRow:
    return PreferenceRow(
        f"What is a {thing}?", f"Here is what a {thing} is: something good.", f"Nobody knows what a {thing} is, sorry."
    )


@pytest.fixture(scope="session")
def data() -> Callable[..., TrainingData]:
    """Every chosen answer is worded alike, and every rejected one; the held-out prompts ask for other things."""

    def make(run_id: str = "run", *more: PreferenceRow) -> TrainingData:
        rows = [_row(thing) for thing in _THINGS]
        train = [*rows[_HELD_OUT:], *more]
        return TrainingData(run_id, {SplitName.TRAIN: train, SplitName.VALIDATION: rows[:_HELD_OUT]}, seed=5)

    return make


@pytest.fixture(scope="session")
def settings() -> Callable[..., TrlSettings]:
    """Eighteen steps, with a checkpoint after every sixth."""

    def make(folder: Path, **more: Any) -> TrlSettings:
        given = {
            "model": "tiny",
            "output_dir": folder,
            "epochs": 3,
            "batch_size": 5,
            "learning_rate": 5e-4,
            "max_length": 64,
            "device": DEVICE,
            "save_every": 6,
            "log_every": 1,
            **more,
        }
        return TrlSettings(**given)

    return make
