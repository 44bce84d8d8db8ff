import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from nat_dpo_pipeline.core.candidates import Turn
from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.plugin.config import DPOTrainerConfig, DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.plugin.nat_api import Config, load_config
from nat_dpo_pipeline.plugin.pairing import PairedDataset, builder_of, rules_of, trainer_of, write_pairs
from nat_dpo_pipeline.testing import make_turn

Settings = dict[str, Any]


def _turns(count: int = 20, scores: Sequence[float] = (1.0, 2.0, 3.0)) -> list[Turn]:
    return [
        make_turn(scores, turn_id=f"turn-{place}", example_id=f"example-{place // 4}", prompt=f"What is {place}?")
        for place in range(count)
    ]


def _write(
    folder: Path, turns: list[Turn], builder: Settings | None = None, trainer: Settings | None = None
) -> PairedDataset:
    return write_pairs(
        folder,
        lambda: iter(turns),
        DPOTrajectoryBuilderConfig(**builder or {}),
        DPOTrainerConfig(**trainer or {}),
        {"workflow": "x"},
    )


def _rows(folder: Path, *sides: str) -> list[dict[str, Any]]:
    names = sides or ("train", "validation")
    return [json.loads(line) for side in names for line in (folder / "trl" / f"{side}.jsonl").read_text().splitlines()]


def _questions(rows: list[dict[str, Any]]) -> set[str]:
    return {row["prompt"][-1]["content"] for row in rows}


def test_pairs_are_split_by_prompt(tmp_path: Path) -> None:
    paired = _write(tmp_path, _turns(), trainer={"validation_fraction": 0.25})
    assert [file.rows for file in paired.written.files] == [45, 15]
    train, validation = _rows(tmp_path, "train"), _rows(tmp_path, "validation")
    assert (len(_questions(train)), len(_questions(validation))) == (15, 5)
    assert not _questions(train) & _questions(validation)
    assert {row["example_id"] for row in train + validation} == {f"example-{place}" for place in range(5)}
    assert all(row["chosen_score"] > row["rejected_score"] for row in train + validation)


def test_the_rules_are_the_builders(tmp_path: Path) -> None:
    config = DPOTrajectoryBuilderConfig(exhaustive_pairs=False, min_score_diff=0.5, max_pairs_per_turn=3)
    assert rules_of(config) == PairingRules(exhaustive_pairs=False, min_score_diff=0.5, max_pairs_per_turn=3)
    paired = _write(tmp_path, _turns(4), {"min_score_diff": 1.5})
    assert len(_rows(tmp_path)) == 4
    assert paired.skipped == {"below_min_score_diff": 8}
    assert json.loads((tmp_path / "manifest.json").read_bytes())["skipped"] == {"pairs": {"below_min_score_diff": 8}}


def test_pairs_are_drawn_with_the_trainers_seed(tmp_path: Path) -> None:
    found = []
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        paired = _write(tmp_path / name, _turns(), trainer={"max_pairs": 10, "seed": seed})
        assert paired.skipped == {"over_max_pairs": 50}
        found.append(_rows(tmp_path / name))
        assert len(found[-1]) == 10
    assert found[0] == found[1] != found[2]


def test_more_pairs_than_there_are_can_be_asked_for(tmp_path: Path) -> None:
    assert _write(tmp_path, _turns(2), trainer={"max_pairs": 100}).skipped == {}
    assert len(_rows(tmp_path)) == 6


def test_a_pair_that_was_there_before_is_left_out_if_the_trainer_says_so(tmp_path: Path) -> None:
    turns = [*_turns(2), *_turns(2)]
    assert _write(tmp_path, turns).skipped == {"duplicate_pairs": 6}
    assert len(_rows(tmp_path)) == 6
    assert _write(tmp_path, turns, trainer={"deduplicate_pairs": False}).skipped == {}
    assert len(_rows(tmp_path)) == 12


def test_without_a_pair_there_is_an_empty_dataset_in_place_of_an_old_one(tmp_path: Path) -> None:
    _write(tmp_path, _turns())
    paired = _write(tmp_path, _turns(3, (1.0, 1.0)))
    assert paired.skipped == {"tie": 3}
    assert [file.rows for file in paired.written.files] == [0, 0]
    assert _rows(tmp_path) == []
    assert _write(tmp_path, []).skipped == {}


def test_turns_are_read_anew_each_time(tmp_path: Path) -> None:
    reads = 0

    def turns() -> Iterator[Turn]:
        nonlocal reads
        reads += 1
        yield from _turns(3)

    write_pairs(tmp_path, turns, DPOTrajectoryBuilderConfig(), DPOTrainerConfig(), {})
    assert reads == 4  # to count, to split, and for each side


def test_a_dataset_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="was not written by this package"):
        _write(tmp_path, _turns())


def _config(folder: Path, names: Sequence[str], builder: str | None = None, trainer: str | None = None) -> Config:
    source = {
        "workflow": {"_type": "scored_candidates"},
        "trajectory_builders": {
            name: {"_type": "dpo_traj_builder", "min_score_diff": place} for place, name in enumerate(names)
        },
        "trainers": {"mine": {"_type": "dpo_trainer", "seed": 5}},
        "finetuning": {"trajectory_builder": builder, "trainer": trainer},
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


def test_the_trainer_says_how_to_split_and_may_be_left_out(tmp_path: Path) -> None:
    assert trainer_of(_config(tmp_path, (), trainer="mine")).seed == 5
    assert trainer_of(_config(tmp_path, ())) == DPOTrainerConfig()
