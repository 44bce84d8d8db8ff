from pathlib import Path
from typing import Any

import pytest
import yaml

from nat_dpo_pipeline.dataset.card import About, Origin, is_our_card, size_category
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset

ROWS = [PreferenceRow(f"Why {n}?", "Because.", "No.", 2.0, 1.0, "e", f"t{n}") for n in range(3)]
CONFIGURATION = {
    "workflow": {"type": "preference_data", "n_subtopics": 5},
    "llms": {"writer": {"model_name": "meta/llama-3.1-405b-instruct", "temperature": 0.2}},
    "trajectory_builder": {"min_score_diff": 0.5, "strategy": None},
}


def _card(folder: Path, **about: Any) -> str:
    splits = {SplitName.TRAIN: ROWS}
    provenance = Provenance(7, CONFIGURATION, {"pairs": {"tie": 3}, "trainer": {}})
    write_dataset(folder, splits, provenance, Target(("trl", "hh", "ultrafeedback"), about=About(**about)))
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_block_holds_what_the_hub_reads(tmp_path: Path) -> None:
    _, block, _ = _card(tmp_path, title="Té", license="cc-by-4.0", languages=("en", "es")).split("---\n", 2)
    metadata = yaml.safe_load(block)
    configs, info = metadata.pop("configs"), metadata.pop("dataset_info")
    assert metadata == {
        "license": "cc-by-4.0",
        "language": ["en", "es"],
        "pretty_name": "Té",
        "task_categories": ["text-generation"],
        "size_categories": ["n<1K"],
        "tags": ["dpo", "preference", "rlhf", "synthetic", "nat-dpo-pipeline"],
    }
    assert configs[0] == {
        "config_name": "trl",
        "data_files": [{"split": "train", "path": "trl/train.jsonl"}],
        "default": True,
    }
    assert [(one["config_name"], [feature["name"] for feature in one["features"]]) for one in info] == [
        ("trl", ["prompt", "chosen", "rejected", "chosen_score", "rejected_score", "example_id", "turn_id"]),
        ("hh", ["chosen", "rejected"]),
    ]


def _metadata(folder: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    return metadata


@pytest.mark.parametrize("parquet", [False, True])
def test_a_format_without_rows_is_told_and_no_configuration(tmp_path: Path, parquet: bool) -> None:
    """Without HelpSteer's attributes there is nothing for steerlm."""
    if parquet:
        pytest.importorskip("pyarrow")
    target = Target(("steerlm", "trl", "hh"), parquet=parquet)
    write_dataset(tmp_path, {SplitName.TRAIN: ROWS}, Provenance(0, {}, {}), target)
    metadata = _metadata(tmp_path)
    assert [(one["config_name"], one.get("default")) for one in metadata["configs"]] == [("trl", True), ("hh", None)]
    assert [one["config_name"] for one in metadata["dataset_info"]] == ["trl", "hh"]
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "Formats without any row, which `load_dataset` does not know: `steerlm`.\n" in card
    assert 'load_dataset("…", "trl")' in card
    assert "rows_steerlm: no_attributes 6" in card


def test_a_dataset_without_rows_has_no_configuration(tmp_path: Path) -> None:
    write_dataset(tmp_path, {}, Provenance(0, {}, {}), Target(("trl", "hh")))
    assert (_metadata(tmp_path)["configs"], _metadata(tmp_path)["dataset_info"]) == ([], [])
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "does not know: `trl`, `hh`." in card
    assert "from datasets import" not in card


def test_people_read_how_it_was_made_and_whom_to_cite(tmp_path: Path) -> None:
    card = _card(tmp_path)
    for told in (
        "Workflow: `preference_data`",
        "Model `writer`: model_name meta/llama-3.1-405b-instruct, temperature 0.2",
        "min_score_diff 0.5",
        "seed 7",
        "3 pairs in train, 0 pairs in validation",
        "| `trl` | `trl/train.jsonl` | 3 |",
        "- pairs: tie 3",
        "arxiv.org/abs/2305.18290",
        "NeMo Curator",
    ):
        assert told in card


@pytest.mark.parametrize(
    ("configuration", "origin"),
    [
        ({"workflow": {"_type": "preference_data"}}, Origin.RECIPE),
        ({"workflow": {"_type": "react_agent"}, "trajectory_builder": {"source": None}}, Origin.WORKFLOW),
        ({"workflow": {"_type": "scored_candidates"}}, Origin.RECORDED),
        ({"workflow": {"_type": "react_agent"}, "trajectory_builder": {"source": ["a.jsonl"]}}, Origin.RECORDED),
        ({"recorded": [{"path": "a.jsonl"}]}, Origin.RECORDED),
        ({}, Origin.RECORDED),
    ],
)
def test_a_card_says_what_is_true_of_its_data(tmp_path: Path, configuration: dict[str, object], origin: Origin) -> None:
    write_dataset(tmp_path, {SplitName.TRAIN: ROWS}, Provenance(0, configuration, {}))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert ("synthetic" in _metadata(tmp_path)["tags"]) is (origin is not Origin.RECORDED)
    assert ("NeMo Curator" in card) is (origin is Origin.RECIPE)
    assert ("recorded elsewhere" in card) is (origin is Origin.RECORDED)
    assert ("- Workflow: " in card) is (origin is not Origin.RECORDED)


def test_a_file_without_rows_is_no_row_of_the_card(tmp_path: Path) -> None:
    card = _card(tmp_path)
    assert "`trl/train.jsonl`" in card
    assert "`trl/validation.jsonl`" not in card


def test_many_recorded_files_are_counted(tmp_path: Path) -> None:
    configuration = {"recorded": [{"path": f"/home/me/{one}.jsonl"} for one in range(23)]}
    write_dataset(tmp_path, {SplitName.TRAIN: ROWS}, Provenance(0, configuration, {}))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "- Recorded candidates: `0.jsonl`\n" in card
    assert "- and 3 more files of recorded candidates\n" in card
    assert "/home/me" not in card


def test_what_is_in_a_configuration_does_not_become_markup(tmp_path: Path) -> None:
    configuration = {"workflow": "agent", "llms": {"x": {"model_name": "<script>`|\n\nevil"}}}
    write_dataset(tmp_path, {SplitName.TRAIN: ROWS}, Provenance(0, configuration, {}))
    assert "- Model `x`: model_name script evil\n" in (tmp_path / "README.md").read_text()


def test_a_title_is_one_line(tmp_path: Path) -> None:
    assert "\n# Tea - one\n" in _card(tmp_path, title="Tea\n- <one>")


def test_a_card_is_known_by_its_mark(tmp_path: Path) -> None:
    _card(tmp_path)
    assert is_our_card(tmp_path / "README.md")
    (tmp_path / "other.md").write_bytes(b"\xff")
    assert not is_our_card(tmp_path / "other.md")
    assert not is_our_card(tmp_path / "missing.md")


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (280_000, "100K<n<1M"),
        (9_999_999, "1M<n<10M"),
        (10_000_000, "n>10M"),
    ],
)
def test_sizes_have_the_hubs_names(rows: int, name: str) -> None:
    assert size_category(rows) == name
