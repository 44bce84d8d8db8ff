from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from nat_dpo_pipeline.plugin.commands.components import builder_of, trainer_of
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrainerConfig
from nat_dpo_pipeline.plugin.nat_api import Config, load_config


def _config(folder: Path, names: Sequence[str], builder: str | None = None, **trainers: int) -> Config:
    source = {
        "workflow": {"_type": "scored_candidates"},
        "trajectory_builders": {
            name: {"_type": "dpo_traj_builder", "min_score_diff": place} for place, name in enumerate(names)
        },
        "trainers": {name: {"_type": "dpo_trainer", "seed": seed} for name, seed in trainers.items()},
        "finetuning": {"trajectory_builder": builder, "trainer": "named" if "named" in trainers else None},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(source))
    return load_config(folder / "config.yml")


@pytest.mark.parametrize(
    ("names", "chosen", "expected"),
    [((), None, None), (("a",), None, 0.0), (("a", "b"), "b", 1.0), (("a", "b"), None, None), (("a",), "c", None)],
)
def test_the_builder_is_the_one_that_is_named_or_the_only_one(
    tmp_path: Path, names: tuple[str, ...], chosen: str | None, expected: float | None
) -> None:
    builder = builder_of(_config(tmp_path, names, chosen))
    assert (None if builder is None else builder.min_score_diff) == expected


@pytest.mark.parametrize(
    ("trainers", "seed"), [({}, 0), ({"only": 5}, 5), ({"one": 5, "other": 6}, 0), ({"one": 5, "named": 6}, 6)]
)
def test_the_trainer_is_the_one_that_is_named_or_the_only_one_or_has_the_defaults(
    tmp_path: Path, trainers: dict[str, int], seed: int
) -> None:
    assert trainer_of(_config(tmp_path, (), **trainers)) == DPOTrainerConfig(seed=seed)
