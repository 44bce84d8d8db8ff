import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.dataset.files import (
    WrittenFile,
    append_json,
    check_writable,
    replaced,
    replaced_folder,
    write_json,
    write_lines,
)
from nat_dpo_pipeline.errors import OutputError

AWKWARD = 'line\u2028separator \u2029 \x00 \x85 \r\n " \\ 😀 é \ufeff'
TEXTS = st.text(st.characters(codec="utf-8"))
ROWS = st.lists(
    st.dictionaries(TEXTS, TEXTS | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False))
)


def _write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> WrittenFile:
    return write_lines(path, (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))


def _default_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_each_row_is_one_line_and_the_counts_and_hash_are_those_of_the_file(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    path = tmp_path / "rows.jsonl"
    written = _write_rows(path, iter(rows))
    content = path.read_bytes()
    assert [json.loads(line) for line in content.split(b"\n")[:-1]] == rows
    assert (written.path, written.rows, written.size) == ("rows.jsonl", len(rows), len(content))
    assert written.sha256 == hashlib.sha256(content).hexdigest()


def test_text_that_looks_like_a_line_break_stays_in_its_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert _write_rows(path, [{"text": AWKWARD}]).rows == 1
    (line,) = path.read_bytes().removesuffix(b"\n").split(b"\n")
    assert json.loads(line) == {"text": AWKWARD}


@pytest.mark.parametrize("count", [0, 1, 3, 15, 16, 17, 40])
def test_rows_are_counted_across_writes(tmp_path: Path, count: int) -> None:
    """A write takes a mebibyte."""
    path = tmp_path / "rows.jsonl"
    written = _write_rows(path, ({"number": number, "text": "x" * 65_536} for number in range(count)))
    assert written.rows == count
    assert path.read_bytes().count(b"\n") == count
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_lines_are_written_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    written = write_lines(path, (b"%d\n" % number for number in range(600)))
    assert path.read_bytes() == b"".join(b"%d\n" % number for number in range(600))
    assert (written.path, written.rows, written.size) == ("lines", 600, path.stat().st_size)


def test_a_file_takes_its_place_once_it_is_written(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.write_text("old")
    with replaced(final) as sink:
        sink.write(b"new")
        assert final.read_text() == "old"
    assert final.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "final"
    final.write_text("old")

    def write_half() -> None:
        with replaced(final) as sink:
            sink.write(b"ne")
            raise error

    with pytest.raises(error):
        write_half()
    assert final.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]


def test_json_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_text("old")
    write_json(path, {"text": AWKWARD})
    assert json.loads(path.read_text(encoding="utf-8")) == {"text": AWKWARD}
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_a_json_file_has_the_permissions_of_an_ordinary_new_file(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {})
    assert (tmp_path / "value.json").stat().st_mode & 0o777 == _default_mode()


def test_json_that_cannot_be_put_in_place_leaves_no_partial_file(tmp_path: Path) -> None:
    taken = tmp_path / "value.json"
    taken.mkdir()
    with pytest.raises(OSError, match=r"value\.json"):
        write_json(taken, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_lines_are_appended_and_folders_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "log.jsonl"
    append_json(path, {"n": 1})
    append_json(path, {"text": AWKWARD})
    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == [{"n": 1}, {"text": AWKWARD}]
    assert lines[-1] == b""


def test_what_json_does_not_know_is_appended_as_its_text(tmp_path: Path) -> None:
    append_json(tmp_path / "log.jsonl", {"error": ValueError("bad"), "path": Path("x")})
    assert json.loads((tmp_path / "log.jsonl").read_bytes()) == {"error": "bad", "path": "x"}


@pytest.mark.parametrize("existed", [False, True])
def test_a_folder_takes_its_place_once_it_is_filled(tmp_path: Path, existed: bool) -> None:
    final = tmp_path / "data"
    if existed:
        final.mkdir()
        (final / "old").touch()
    with replaced_folder(final) as stage:
        (stage / "new").touch()
        assert [*final.glob("*")] == [*final.glob("old")]
    assert [entry.name for entry in final.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_a_new_folder_has_the_permissions_of_an_ordinary_new_folder(tmp_path: Path) -> None:
    with replaced_folder(tmp_path / "data"):
        pass
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "data").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "data"
    final.mkdir()
    (final / "old").write_text("kept")

    def fill_half() -> None:
        with replaced_folder(final) as stage:
            (stage / "new").touch()
            raise error

    with pytest.raises(error):
        fill_half()
    assert (final / "old").read_text() == "kept"
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_what_a_killed_run_left_is_removed_and_other_folders_are_not(tmp_path: Path) -> None:
    for name in (".data.partial-killed", ".other.partial-killed", "data.partial-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows").touch()
    with replaced_folder(tmp_path / "data"):
        pass
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.partial-killed", "data", "data.partial-mine"]


def test_rows_that_fail_half_way_are_the_callers_error(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, object]]:
        yield {"n": 1}
        raise LookupError("second row")

    with pytest.raises(LookupError, match="second row"):
        _write_rows(tmp_path / "rows.jsonl", rows())


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert [*(tmp_path / "a" / "b").iterdir()] == []
    check_writable(tmp_path / "a" / "b")


@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_a_file_in_place_of_a_folder_is_an_output_error_that_names_the_path(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("a file")
    folder = tmp_path / "taken" / below
    with pytest.raises(OutputError, match="choose another folder") as error:
        check_writable(folder)
    assert repr(str(folder)) in str(error.value)
    assert (tmp_path / "taken").read_text() == "a file"
