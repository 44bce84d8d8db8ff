import hashlib
import json
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, overload

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.pairs import SkipReason
from nat_dpo_pipeline.dataset.files import lock_of
from nat_dpo_pipeline.dataset.formats import FORMATS, DatasetRow, PreferenceRow, SplitName, UnpairedRow, trl_row
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME, versions
from nat_dpo_pipeline.dataset.writer import Provenance, Target, check_target, write_dataset
from nat_dpo_pipeline.errors import ConfigurationError, OutputError

AWKWARD = "a\u2028b\u2029c\x00d\x85e 😀"
TRAIN = [
    PreferenceRow("Why?", "Because.", "No.", 2.5, 1.0, "example-0", "turn-0"),
    PreferenceRow((Message("system", "Be brief."), Message("user", AWKWARD)), AWKWARD, "b", 3, -1.0),
    PreferenceRow("How?", "So.", "Not so."),
]
VALIDATION = [PreferenceRow("When?", "Now.", "Never.", 0.5, 0.25)]
PROVENANCE = Provenance(
    seed=42, configuration={"exhaustive_pairs": True}, skipped={"pairs": {"tie": 3}}, report={"n": 1}
)


class FailingRows(Sequence[PreferenceRow]):
    """One good row, then an error as a full disk would raise it."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, index: int) -> PreferenceRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PreferenceRow]: ...
    def __getitem__(self, index: int | slice) -> PreferenceRow | Sequence[PreferenceRow]:
        raise self._error

    def __iter__(self) -> Iterator[PreferenceRow]:
        yield TRAIN[0]
        raise self._error


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"<folder>"
        for path in folder.rglob("*")
    }


TRL = ["trl", "trl/.nat-dpo-pipeline", "trl/dpo.yaml", "trl/train.jsonl", "trl/validation.jsonl"]
FILES = [".lock", "README.md", "manifest.json", *TRL]


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _write(folder: Path) -> None:
    write_dataset(folder, {SplitName.TRAIN: TRAIN, SplitName.VALIDATION: VALIDATION}, PROVENANCE)


def test_a_dataset_is_two_files_of_rows_and_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "dataset"
    _write(folder)
    assert sorted(_snapshot(folder)) == FILES
    assert _lines(folder / "trl/train.jsonl") == [trl_row(row) for row in TRAIN]
    assert _lines(folder / "trl/validation.jsonl") == [trl_row(row) for row in VALIDATION]


def test_the_result_says_where_everything_went(tmp_path: Path) -> None:
    written = write_dataset(tmp_path, {SplitName.TRAIN: TRAIN}, PROVENANCE)
    assert written.folder == tmp_path
    assert written.manifest == tmp_path / MANIFEST_NAME
    assert [(file.path, file.rows) for file in written.files] == [("trl/train.jsonl", 3), ("trl/validation.jsonl", 0)]
    for file in written.files:
        content = (tmp_path / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_manifest_names_versions_counts_and_the_hash_of_every_file(tmp_path: Path) -> None:
    _write(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_NAME).read_bytes())
    files, training = manifest.pop("files"), manifest.pop("training")
    assert [entry["file"] for entry in training] == ["trl/dpo.yaml"]
    assert manifest == {
        "generator": "nat-dpo-pipeline",
        "kind": "dataset",
        "versions": versions(),
        "seed": 42,
        "configuration": {"exhaustive_pairs": True},
        "counts": {"train_pairs": 3, "validation_pairs": 1},
        "skipped": {"pairs": {"tie": 3}},
        "report": {"n": 1},
    }
    assert {file["path"]: file["sha256"] for file in files} == {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("trl/train.jsonl", "trl/validation.jsonl", "trl/dpo.yaml", "README.md")
    }


def test_a_dataset_of_nothing_still_has_its_files(tmp_path: Path) -> None:
    write_dataset(tmp_path, {}, PROVENANCE)
    assert (tmp_path / "trl/train.jsonl").read_bytes() == b""
    assert (tmp_path / "trl/validation.jsonl").read_bytes() == b""
    assert json.loads((tmp_path / MANIFEST_NAME).read_bytes())["counts"] == {"train_pairs": 0, "validation_pairs": 0}


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name)
    assert _snapshot(tmp_path / "one") == _snapshot(tmp_path / "two")


def test_a_second_dataset_replaces_the_first(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "trl/stale.jsonl").touch()
    write_dataset(tmp_path, {SplitName.TRAIN: VALIDATION}, PROVENANCE)
    assert sorted(_snapshot(tmp_path)) == FILES
    assert len(_lines(tmp_path / "trl/train.jsonl")) == 1
    assert json.loads((tmp_path / MANIFEST_NAME).read_bytes())["counts"]["train_pairs"] == 1


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    _write(tmp_path)
    _write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
@pytest.mark.parametrize("split", SplitName)
def test_an_error_half_way_leaves_the_previous_dataset_whole(
    tmp_path: Path, split: SplitName, error: BaseException
) -> None:
    _write(tmp_path)
    before = _snapshot(tmp_path)
    with pytest.raises(type(error)):
        write_dataset(tmp_path, {split: FailingRows(error)}, PROVENANCE)
    assert _snapshot(tmp_path) == before


def test_an_error_half_way_of_the_first_dataset_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_dataset(tmp_path, {SplitName.TRAIN: FailingRows(RuntimeError())}, PROVENANCE)
    assert list(_snapshot(tmp_path)) == [".lock"]


def test_a_full_disk_is_an_output_error_that_names_the_folder(tmp_path: Path) -> None:
    _write(tmp_path)
    before = _snapshot(tmp_path)
    with pytest.raises(OutputError, match="No space left on device") as error:
        write_dataset(tmp_path, {SplitName.TRAIN: FailingRows(OSError(28, "No space left on device"))}, PROVENANCE)
    assert repr(str(tmp_path)) in str(error.value)
    assert _snapshot(tmp_path) == before


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / ".trl.partial-killed").mkdir()
    (tmp_path / ".trl.partial-killed" / "train.jsonl").write_text("{")
    _write(tmp_path)
    assert sorted(_snapshot(tmp_path)) == FILES


@pytest.mark.parametrize("manifest", [None, "{}", "not json", '{"generator": "somebody else"}'])
def test_a_folder_that_somebody_else_made_is_refused_and_untouched(tmp_path: Path, manifest: str | None) -> None:
    (tmp_path / "trl").mkdir()
    (tmp_path / "trl/train.jsonl").write_text("precious")
    if manifest is not None:
        (tmp_path / MANIFEST_NAME).write_text(manifest)
    before = _snapshot(tmp_path)
    with pytest.raises(OutputError, match="was not written by this package") as error:
        _write(tmp_path)
    assert repr(str(tmp_path / "trl")) in str(error.value)
    assert _snapshot(tmp_path) == before


def test_a_target_can_be_checked_before_the_work(tmp_path: Path) -> None:
    check_target(tmp_path / "new")
    _write(tmp_path)
    check_target(tmp_path)
    (tmp_path / MANIFEST_NAME).unlink()
    check_target(tmp_path)
    (tmp_path / "trl" / ".nat-dpo-pipeline").unlink()
    with pytest.raises(OutputError, match="choose another output_dir"):
        check_target(tmp_path)


def test_a_file_in_place_of_the_folder_is_an_output_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(OutputError) as error:
            _write(folder)
        assert repr(str(folder)) in str(error.value)
    assert (tmp_path / "taken").read_text() == "a file"


def test_the_datasets_library_loads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    _write(tmp_path / "out")
    loaded = datasets.load_dataset(
        "json",
        data_files={"train": str(tmp_path / "out/trl/train.jsonl")},
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert loaded.num_rows == 3
    assert [row["prompt"] for row in loaded] == [trl_row(row)["prompt"] for row in TRAIN]
    assert [row["chosen"] for row in loaded] == [trl_row(row)["chosen"] for row in TRAIN]
    assert loaded["rejected_score"][:] == [1.0, -1.0, None]


def test_settings_that_json_does_not_hold_are_in_the_manifest_all_the_same(tmp_path: Path) -> None:
    odd = {"seed": 2**70, "since": date(2026, 1, 2), "cost": float("nan"), "model": "half \ud83d", 3: {"a", "b"}}
    write_dataset(tmp_path, {SplitName.TRAIN: VALIDATION}, Provenance(0, odd, {"pairs": {SkipReason.TIE: 1}}))
    manifest = json.loads((tmp_path / MANIFEST_NAME).read_text())
    assert manifest["configuration"] == {
        "seed": str(2**70),
        "since": "2026-01-02",
        "cost": None,
        "model": "half \ud83d",
        "3": ["a", "b"],
    }
    assert manifest["skipped"]["pairs"] == {"tie": 1}


def test_a_run_killed_while_it_replaced_a_dataset_is_cleared_up(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "trl").rename(tmp_path / ".trl.replaced-1")
    (tmp_path / ".trl.partial-x").mkdir()
    with pytest.raises(OutputError):
        write_dataset(tmp_path, {SplitName.TRAIN: FailingRows(OSError())}, PROVENANCE)
    assert sorted(_snapshot(tmp_path)) == FILES
    assert _lines(tmp_path / "trl/train.jsonl") == [trl_row(row) for row in TRAIN]


def test_a_manifest_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_text('{"name": "my web app"}')
    with pytest.raises(OutputError, match="was not written by this package"):
        _write(tmp_path)
    assert (tmp_path / MANIFEST_NAME).read_text() == '{"name": "my web app"}'


def test_two_runs_cannot_write_to_one_place_at_once(tmp_path: Path) -> None:
    with lock_of(tmp_path), pytest.raises(OutputError, match="another run is writing"):
        _write(tmp_path)
    _write(tmp_path)
    assert sorted(_snapshot(tmp_path)) == FILES


def test_several_formats_are_written_in_one_pass(tmp_path: Path) -> None:
    names = ("openai", "hh", "kto", "llama_factory")
    splits = {SplitName.TRAIN: iter(TRAIN), SplitName.VALIDATION: iter(VALIDATION)}
    written = write_dataset(tmp_path, splits, PROVENANCE, Target(names))
    assert [(file.path, file.rows) for file in written.files] == [
        ("openai/training.jsonl", 3),
        ("openai/validation.jsonl", 1),
    ]
    assert [(file.path, file.rows) for file in written.others] == [
        ("hh/train.jsonl", 2),
        ("hh/test.jsonl", 1),
        ("kto/train.jsonl", 6),
        ("kto/validation.jsonl", 2),
        ("llama_factory/train.jsonl", 3),
        ("llama_factory/validation.jsonl", 1),
        ("llama_factory/dataset_info.json", 0),
        ("llama_factory/dpo.yaml", 0),
        ("README.md", 0),
    ]
    assert written.pairs == {"train": 3, "validation": 1}
    assert written.refused == {"rows_hh": {"system_prompt": 1}}
    manifest = json.loads((tmp_path / MANIFEST_NAME).read_bytes())
    assert manifest["skipped"] == {"pairs": {"tie": 3}, "rows_hh": {"system_prompt": 1}}
    assert {file["path"]: (file["size"], file["sha256"]) for file in manifest["files"]} == {
        file.path: (
            (tmp_path / file.path).stat().st_size,
            hashlib.sha256((tmp_path / file.path).read_bytes()).hexdigest(),
        )
        for file in (*written.files, *written.others)
    }


@pytest.mark.parametrize(
    "row",
    [
        PreferenceRow("Why?", "half \ud83d", "No."),
        PreferenceRow("Why?", "Because.", "half \ud83d"),
        PreferenceRow("half \ud83d", "Because.", "No."),
        PreferenceRow((Message("user", "half \ud83d"),), "Because.", "No."),
        PreferenceRow("Why?", "Because.", "No.", turn_id="half \ud83d"),
        PreferenceRow("Why?", "Because.", "No.", chosen_model="half \ud83d"),
        UnpairedRow("Why?", "half \ud83d", True),
    ],
)
def test_what_has_no_utf8_is_counted_and_costs_no_other_row(tmp_path: Path, row: DatasetRow) -> None:
    target = Target(tuple(one.name for one in FORMATS), parquet=True)
    rows = [PreferenceRow("Why?", "Before.", "No.\u00e9"), row, PreferenceRow("Why?", "After.", "No.")]
    written = write_dataset(tmp_path, {SplitName.TRAIN: rows}, PROVENANCE, target)
    assert written.refused["rows"] == {"invalid_unicode": 1}
    assert [line["chosen"][0]["content"] for line in _lines(tmp_path / "trl/train.jsonl")] == ["Before.", "After."]


def test_a_format_that_is_not_written_anew_goes(tmp_path: Path) -> None:
    write_dataset(tmp_path, {SplitName.TRAIN: TRAIN}, PROVENANCE, Target(("hh", "trl")))
    (tmp_path / "openai").mkdir()
    _write(tmp_path)
    assert sorted(_snapshot(tmp_path)) == sorted([*FILES, "openai"])


@pytest.mark.parametrize("name", ["hh/train.jsonl", "README.md"])
def test_what_somebody_else_put_beside_our_dataset_is_not_replaced(tmp_path: Path, name: str) -> None:
    _write(tmp_path)
    (tmp_path / "README.md").unlink()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = _snapshot(tmp_path)
    with pytest.raises(OutputError, match="was not written by this package"):
        write_dataset(tmp_path, {SplitName.TRAIN: TRAIN}, PROVENANCE, Target(("trl", "hh")))
    assert _snapshot(tmp_path) == before


def test_an_error_half_way_leaves_every_format_whole(tmp_path: Path) -> None:
    target = Target(("trl", "hh", "kto"), parquet=True)
    write_dataset(tmp_path, {SplitName.TRAIN: TRAIN}, PROVENANCE, target)
    before = _snapshot(tmp_path)
    with pytest.raises(RuntimeError):
        write_dataset(tmp_path, {SplitName.VALIDATION: FailingRows(RuntimeError())}, PROVENANCE, target)
    assert _snapshot(tmp_path) == before


def test_an_unknown_format_and_a_missing_pyarrow_are_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="no format 'x'"):
        check_target(tmp_path / "new", Target(("x",)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"nat-dpo-pipeline\[parquet\]"):
        check_target(tmp_path / "new", Target(parquet=True))
    assert not (tmp_path / "new").exists()


def test_writing_takes_no_memory_by_row(tmp_path: Path) -> None:
    def rows(count: int) -> Iterator[PreferenceRow]:
        return (
            PreferenceRow(f"{n}", f"{n} {'x' * 1000}", f"{n} {'y' * 1000}", 2.0, 1.0, "e", f"{n}") for n in range(count)
        )

    def peak(count: int) -> int:
        tracemalloc.start()
        write_dataset(tmp_path / str(count), {SplitName.TRAIN: rows(count)}, PROVENANCE, Target(("trl", "kto", "hh")))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few, many = peak(2000), peak(8000)
    characters_of_the_others = 6000 * 2000
    assert many - few < characters_of_the_others / 10


def test_many_rows_go_to_parquet_in_groups(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [PreferenceRow(f"{n}?", "a" * 10_000, "b", 2.0, None, "e", f"{n}") for n in range(2001)]
    write_dataset(tmp_path, {SplitName.TRAIN: rows}, PROVENANCE, Target(parquet=True))
    with parquet.ParquetFile(tmp_path / "trl/train.parquet") as file:
        assert (file.metadata.num_rows, file.num_row_groups) == (2001, 2)
        assert file.read().to_pylist() == [trl_row(row) for row in rows]
