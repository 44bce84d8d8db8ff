import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.candidates import Turn
from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.errors import InputError, OutputError
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import SplitSettings
from nat_dpo_pipeline.pairing.datasets import PairedDataset, write_pairs
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
        BuilderSettings(**builder or {}),
        SplitSettings(**trainer or {}),
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
    config = BuilderSettings(exhaustive_pairs=False, min_score_diff=0.5, max_pairs_per_turn=3)
    assert config.pairing_rules() == PairingRules(exhaustive_pairs=False, min_score_diff=0.5, max_pairs_per_turn=3)
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

    write_pairs(tmp_path, turns, BuilderSettings(), SplitSettings(), {})
    assert reads == 4  # to count, to split, and for each side


def test_a_dataset_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match="was not written by this package"):
        _write(tmp_path, _turns())


def test_every_rule_of_the_builder_reaches_the_pairing(tmp_path: Path) -> None:
    evaluation = tmp_path / "evaluation.txt"
    evaluation.write_text("What is 3?\n")
    values: Settings = {
        "min_score_diff": 0.1,
        "max_pairs_per_turn": 2,
        "strategy": "adjacent",
        "seed": 3,
        "max_score_diff": 5.0,
        "min_chosen_score": 0.5,
        "min_best_score": 0.6,
        "min_rejected_score": 0.7,
        "min_rejected_length": 8,
        "min_agreement": 0.9,
        "max_length_ratio": 3.0,
        "length_penalty": 0.25,
        "near_duplicate": 0.95,
        "pair_flawed": True,
    }
    selecting: Settings = {
        "drop_contradictions": True,
        "max_prompts_per_chosen": 4,
        "min_margin_quantile": 0.5,
        "length_balance": 0.6,
    }
    config = BuilderSettings(**values, **selecting, decontaminate_against=evaluation)
    assert config.pairing_rules() == PairingRules(**values)
    rules = config.selection_rules()
    assert {name: getattr(rules, name) for name in selecting} == selecting
    assert rules.evaluation is not None
    assert (rules.evaluation.overlaps("what is 3"), rules.evaluation.overlaps("what is 4")) == (True, False)
    assert BuilderSettings().selection_rules().is_empty


def test_what_is_found_over_all_pairs_is_left_out_before_any_is_drawn(tmp_path: Path) -> None:
    turns = [make_turn([0.0, float(place + 1)], turn_id=f"{place}", prompt=f"What is {place}?") for place in range(8)]
    paired = _write(tmp_path, turns, {"min_margin_quantile": 0.5}, {"max_pairs": 3})
    assert paired.skipped == {"below_min_margin_quantile": 4, "over_max_pairs": 1}
    rows = _rows(tmp_path)
    assert len(rows) == 3
    assert all(row["chosen_score"] >= 5.0 for row in rows)


def test_turns_are_read_once_more_to_select(tmp_path: Path) -> None:
    reads = 0

    def turns() -> Iterator[Turn]:
        nonlocal reads
        reads += 1
        yield from _turns(3)

    write_pairs(tmp_path, turns, BuilderSettings(length_balance=0.5), SplitSettings(), {})
    assert reads == 5


def test_an_evaluation_set_that_says_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "evaluation.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(InputError, match=r"evaluation.jsonl', row 1: nothing asked in an object with 'id'"):
        _write(tmp_path / "out", _turns(1), {"decontaminate_against": tmp_path / "evaluation.jsonl"})
