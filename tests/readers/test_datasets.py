"""The `datasets` library reads every format, from the folder's card, as it was meant."""

from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.messages import as_messages
from nat_dpo_pipeline.dataset.formats import FORMATS, PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.formats.reading import read, recognised
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = tuple(one.name for one in FORMATS)
# Formats whose rows are those of another one.
READ_AS = {"openrlhf": "trl", "oumi": "trl_standard"}
PARQUET = tuple(one.name for one in FORMATS if one.parquet)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, awkward: Any) -> Path:
    return _written(tmp_path_factory.mktemp("jsonl"), awkward, Target(NAMES))


@pytest.fixture(scope="module")
def parquet_folder(tmp_path_factory: pytest.TempPathFactory, awkward: Any) -> Path:
    return _written(tmp_path_factory.mktemp("parquet"), awkward, Target(PARQUET, parquet=True))


def _written(folder: Path, awkward: Any, target: Target) -> Path:
    splits = {SplitName.TRAIN: [*awkward.rows, awkward.surrogate], SplitName.VALIDATION: awkward.rows[:1]}
    written = write_dataset(folder, splits, Provenance(0, {}, {}), target)
    assert written.refused["rows"] == {"invalid_unicode": 1}
    return folder


def _loaded(folder: Path, name: str, cache: Path) -> Any:
    return datasets.load_dataset(str(folder), name, cache_dir=str(cache))


def _sides(row: PreferenceRow) -> tuple[list[dict[str, str]], tuple[str, str]]:
    return as_messages(row.prompt), (row.chosen, row.rejected)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("kto", "steerlm", "ultrafeedback", "hh")])
def test_every_pair_comes_back_as_it_was(name: str, folder: Path, awkward: Any, tmp_path: Path) -> None:
    loaded = _loaded(folder, name, tmp_path)
    assert set(loaded) == {"train", "validation"}
    found = [read(READ_AS.get(name, name), row) for row in loaded["train"]]
    expected = [_sides(row) for row in awkward.carried(READ_AS.get(name, name))]
    assert [(as_messages(row.prompt), row.answers) for row in found] == expected


def test_every_transcript_comes_back_as_it_was(folder: Path, awkward: Any, tmp_path: Path) -> None:
    found = [read("hh", row) for row in _loaded(folder, "hh", tmp_path)["train"]]
    assert [row.answers for row in found] == [(row.chosen, row.rejected) for row in awkward.carried("hh")]
    assert found[2].prompt == "\n\nHuman: Why?\n\nAssistant: Because.\n\nHuman: Go on."


@pytest.mark.parametrize("name", ["kto", "steerlm", "ultrafeedback"])
def test_every_answer_comes_back_as_it_was(name: str, folder: Path, awkward: Any, tmp_path: Path) -> None:
    rows = list(_loaded(folder, name, tmp_path)["train"])
    answers = [answer for row in rows for answer in read(name, row).answers]
    assert answers == [text for row in awkward.carried(name) for text in (row.chosen, row.rejected)]


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_holds_the_same(name: str, folder: Path, parquet_folder: Path, tmp_path: Path) -> None:
    lines, columns = _loaded(folder, name, tmp_path), _loaded(parquet_folder, name, tmp_path)
    assert columns["train"].features == lines["train"].features
    assert columns["train"].to_list() == lines["train"].to_list()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_recognised_by_what_is_in_it(name: str, folder: Path, tmp_path: Path) -> None:
    assert recognised(_loaded(folder, name, tmp_path)["train"][0]) == READ_AS.get(name, name)


@pytest.mark.parametrize("name", ["trl", None])
def test_a_dataset_loads_beside_a_format_without_rows(tmp_path: Path, name: str | None) -> None:
    rows = [PreferenceRow("Why?", "Because.", "No.")]
    write_dataset(tmp_path / "out", {SplitName.TRAIN: rows}, Provenance(0, {}, {}), Target(("steerlm", "trl")))
    loaded = datasets.load_dataset(str(tmp_path / "out"), name, cache_dir=str(tmp_path / "cache"))
    assert [row["chosen"][0]["content"] for row in loaded["train"]] == ["Because."]
    with pytest.raises(ValueError, match="BuilderConfig 'steerlm' not found"):
        _loaded(tmp_path / "out", "steerlm", tmp_path / "cache")


def test_a_dataset_without_validation_rows_loads(tmp_path: Path, awkward: Any) -> None:
    write_dataset(tmp_path / "out", {SplitName.TRAIN: awkward.rows}, Provenance(0, {}, {}))
    assert set(_loaded(tmp_path / "out", "trl", tmp_path)) == {"train"}
    assert _loaded(tmp_path / "out", "trl", tmp_path)["train"].num_rows == 5
