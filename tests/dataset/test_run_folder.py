import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.files import lock_of
from nat_dpo_pipeline.dataset.run_files import CANDIDATES, FAILURES, JOURNAL, SET_ASIDE
from nat_dpo_pipeline.dataset.run_folder import RunFolder
from nat_dpo_pipeline.dataset.writer import Provenance, write_dataset
from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.steps import Item
from nat_dpo_pipeline.generation.turns import Question, Turn
from nat_dpo_pipeline.records.turns import read_turns
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME

QUESTION = Question((Message("user", "Why?"),), "Text", "Letters")
FAILURE = Failure("rewards", "Why?", FailureReason.UNPARSABLE_REPLY, "no score in it", "Hello")


def _item(place: int, *scores: float, set_aside: str | None = None, text: str = "answer") -> Item[Turn]:
    name = f"question-{place}"
    candidates = tuple(
        Candidate("", name, index, QUESTION.messages, f"{text} {index}", score, model="m", metadata={"llm": "writer"})
        for index, score in enumerate(scores)
    )
    return Item(Turn(name, QUESTION, candidates, set_aside=set_aside), (0, place))


def _finish(folder: RunFolder, record: GenerationRecord | None = None, status: str = "complete") -> None:
    folder.write_candidates()
    folder.write_manifest(record or GenerationRecord(), status=status, configuration={"workflow": {"seed": 7}})


def _write(path: Path, *items: Item[Turn], status: str = "complete") -> None:
    with RunFolder(path) as folder:
        for item in items:
            folder.add(item, "example")
        _finish(folder, status=status)


def _manifest(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_bytes())
    return manifest


def _names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))


def test_a_run_leaves_candidates_and_a_manifest_that_says_what_they_are(tmp_path: Path) -> None:
    record = GenerationRecord()
    record.counts["candidates"] = 4
    with RunFolder(tmp_path / "new" / "run") as folder:
        folder.add(_item(1, 2.0, 1.0), "example")
        folder.add(_item(0, 2.0, 1.0), "example")
        _finish(folder, record)
    path = tmp_path / "new" / "run"
    assert _names(path) == [CANDIDATES, "manifest.json"]
    content = (path / CANDIDATES).read_bytes()
    assert [json.loads(line)["turn_id"] for line in content.splitlines()] == ["question-0", "question-1"]
    manifest = _manifest(path)
    assert manifest["status"] == "complete"
    assert manifest["kind"] == "generation"
    assert manifest["counts"] == {"candidates": 4}
    assert manifest["configuration"] == {"workflow": {"seed": 7}}
    digest = hashlib.sha256(content).hexdigest()
    assert manifest["files"] == [{"path": CANDIDATES, "rows": 2, "size": len(content), "sha256": digest}]
    assert not list(path.glob(".turns*"))


def test_what_cannot_be_paired_has_a_file_of_its_own_as_long_as_there_is_any(tmp_path: Path) -> None:
    _write(tmp_path, _item(0, 1.0), _item(1, 1.0, set_aside="below_min_best_score"), _item(2))
    rows = [json.loads(line) for line in (tmp_path / SET_ASIDE).read_text().splitlines()]
    assert [row["turn_id"] for row in rows] == ["question-1", "question-2"]
    _write(tmp_path, _item(0, 1.0))
    assert not (tmp_path / SET_ASIDE).exists()


def test_turns_are_given_as_those_that_compete(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.add(_item(1, 1.0, 2.0), "b")
        folder.add(_item(0, 3.0), "a")
        folder.add(_item(2, 1.0, set_aside="below_min_best_score"), "c")
        folder.write_candidates()
        turns = list(read_turns([str(tmp_path / CANDIDATES)], DEFAULT_STEP_NAME))
    assert [(turn.example_id, turn.turn_id, [one.score for one in turn.candidates]) for turn in turns] == [
        ("a", "question-0", [3.0]),
        ("b", "question-1", [1.0, 2.0]),
    ]
    assert turns[0].prompt == QUESTION.messages


def test_what_no_file_can_hold_as_utf_8_costs_only_itself(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.add(_item(0, 1.0, 2.0, text="half \ud83d"), "a")
        folder.add(_item(1, 1.0, 2.0), "b")
        _finish(folder)
        found = read_turns([str(tmp_path / CANDIDATES)], DEFAULT_STEP_NAME)
        assert [turn.turn_id for turn in found] == ["question-1"]
    assert len((tmp_path / CANDIDATES).read_bytes().splitlines()) == 2


def test_failures_are_on_disk_at_once_and_the_first_that_is_not_an_inputs_is_known(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.failed(Failure("input", "{", FailureReason.MALFORMED_INPUT, "row-1"))
        folder.failed(FAILURE)
        folder.failed(Failure("rewards", "How?", FailureReason.MODEL_ERROR, "later"))
        rows = [json.loads(line) for line in (tmp_path / FAILURES).read_text().splitlines()]
        assert folder.first_failure == FAILURE
    assert [row["detail"] for row in rows] == ["row-1", "no score in it", "later"]
    assert rows[1]["reply"] == "Hello"


def test_a_second_run_replaces_the_first_but_not_its_journal(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.failed(FAILURE)
        folder.add(_item(0, 1.0), "a")
        _finish(folder)
    (tmp_path / JOURNAL).write_text("replies")
    with RunFolder(tmp_path):
        # Until it ends nothing says that the files are those of this run.
        assert not (tmp_path / "manifest.json").exists()
    assert not (tmp_path / FAILURES).exists()
    _write(tmp_path, _item(0, 1.0), _item(1, 1.0))
    assert len((tmp_path / CANDIDATES).read_bytes().splitlines()) == 2
    assert (tmp_path / JOURNAL).read_text() == "replies"


def test_a_run_that_was_killed_is_ours_to_go_on_with(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.__enter__()
    folder.add(_item(0, 1.0), "a")
    folder.failed(FAILURE)
    folder.__exit__(None, None, None)
    (tmp_path / ".turns.sqlite").write_text("half")
    (tmp_path / CANDIDATES).write_text("of an earlier run\n")
    _write(tmp_path, _item(0, 1.0))
    assert _names(tmp_path) == [CANDIDATES, "manifest.json"]


@pytest.mark.parametrize("name", [CANDIDATES, FAILURES, "manifest.json"])
def test_files_of_somebody_else_are_refused_and_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError, match="was not written by this package") as error, RunFolder(tmp_path):
        pass
    assert repr(str(tmp_path / name)) in str(error.value)
    assert (tmp_path / name).read_text() == "precious"
    assert not list(tmp_path.glob(".turns*"))


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    _write(tmp_path)
    _write(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_is_of_one_run_at_a_time(tmp_path: Path) -> None:
    _write(tmp_path, _item(0, 1.0))
    before = _manifest(tmp_path)
    with lock_of(tmp_path), pytest.raises(OutputError, match="another run is writing"), RunFolder(tmp_path):
        pass
    assert _manifest(tmp_path) == before
    _write(tmp_path)


def test_a_file_in_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="cannot write to"), RunFolder(tmp_path / "taken"):
        pass


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fsync)
        yield


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_an_output_error_and_leaves_no_half_file(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.add(_item(0, 1.0), "a")
        with pytest.raises(OutputError, match="No space left on device"):
            folder.write_candidates()
        with pytest.raises(OutputError, match="No space left on device"):
            folder.write_manifest(GenerationRecord(), status="complete", configuration={})
    assert _names(tmp_path) == []
    assert not list(tmp_path.glob(".candidates*"))


@pytest.mark.parametrize(
    "row", [b"{", b"[]", b'{"prompt": "q", "candidates": [{"response": "a", "score": "good"}]}', b"\xff"]
)
def test_a_row_that_is_none_is_told_with_its_line(tmp_path: Path, row: bytes) -> None:
    with RunFolder(tmp_path) as folder:
        folder.add(_item(0, 1.0), "a")
        _finish(folder)
    with (tmp_path / "candidates.jsonl").open("ab") as file:
        file.write(row)
    (bad,) = read_turns([str(tmp_path / CANDIDATES)], DEFAULT_STEP_NAME).bad
    assert (bad.path, bad.line) == (str(tmp_path / CANDIDATES), 2)


def test_a_run_and_a_dataset_do_not_take_each_others_manifest(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        _finish(folder)
    write_dataset(tmp_path / "dataset", {}, Provenance(0, {}, {}))
    before = [(tmp_path / name / "manifest.json").read_bytes() for name in ("run", "dataset")]
    with pytest.raises(OutputError, match="not written by this package for a dataset"):
        write_dataset(tmp_path / "run", {}, Provenance(0, {}, {}))
    with pytest.raises(OutputError, match="not written by this package for a run"), RunFolder(tmp_path / "dataset"):
        pass
    assert [(tmp_path / name / "manifest.json").read_bytes() for name in ("run", "dataset")] == before


def test_memory_does_not_grow_with_the_turns(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        with RunFolder(tmp_path / str(count)) as folder:
            tracemalloc.start()
            for place in range(count):
                folder.add(_item(place, 1.0, 2.0, text="word " * 400), "example")
            _finish(folder)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return most

    # 512 KiB are written at once: 600 rows fill that several times.
    characters_of_the_others = 2400 * 2 * len("word " * 400)
    assert peak(3000) - peak(600) < characters_of_the_others / 10
