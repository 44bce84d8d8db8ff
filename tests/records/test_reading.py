"""Files, whatever is the matter with them: compressed, cut off, damaged, empty, of no known format."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.records.inputs import files_found
from nat_dpo_pipeline.records.pieces import parsed, pieces
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME
from tests.records.helpers import read, write_lines


def _rows(count: int = 100) -> list[dict[str, Any]]:
    return [{"prompt": f"q{number // 2}", "response": f"a{number}", "reward": number} for number in range(count)]


def _zstd(path: Path, text: bytes) -> None:
    with pyarrow.output_stream(str(path), compression="zstd") as file:
        file.write(text)


def _gzip(path: Path, text: bytes) -> None:
    path.write_bytes(gzip.compress(text))


@pytest.mark.parametrize("compress", [_gzip, _zstd])
def test_compressed_files_are_known_by_their_content(tmp_path: Path, compress: Callable[[Path, bytes], None]) -> None:
    plain = write_lines(tmp_path / "plain", _rows())
    compress(tmp_path / "small", plain.read_bytes())
    assert read(tmp_path / "small").answers == read(plain).answers


@pytest.mark.parametrize("compress", [_gzip, _zstd])
def test_of_compressed_data_that_are_cut_off_the_rest_is_read(
    tmp_path: Path, compress: Callable[[Path, bytes], None]
) -> None:
    plain = write_lines(tmp_path / "plain", [{**row, "noise": hash(str(row))} for row in _rows(5_000)])
    compress(tmp_path / "small", plain.read_bytes())
    (tmp_path / "cut").write_bytes((tmp_path / "small").read_bytes()[:-2000])
    found = read(tmp_path / "cut")
    assert 3_000 < found.files.candidates < 5_000
    assert "the rest cannot be read" in found.bad[-1].reason


def test_without_pyarrow_a_zst_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _zstd(tmp_path / "small.zst", b"{}")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'nat-dpo-pipeline\[parquet\]'"):
        read(tmp_path / "small.zst")


@pytest.mark.parametrize("name", ["recorded_candidates.jsonl", "full.txt", "events.jsonl"])
def test_a_line_that_a_crash_cut_off_is_counted(recordings: Any, tmp_path: Path, name: str) -> None:
    text = (recordings.folder / name).read_text()
    line = max(place for place, line in enumerate(text.split("\n")) if '"score": 1.5' in _plain(line))
    lines = text.split("\n")[: line + 1]
    (tmp_path / "cut").write_text("\n".join([*lines[:-1], lines[-1][: len(lines[-1]) // 2]]))
    found = read(tmp_path / "cut")
    whole = read(recordings.folder / name)
    assert found.refused["malformed"] == 1
    assert found.bad[-1].line == line + 1
    assert 0 < found.files.candidates < whole.files.candidates


def _plain(line: str) -> str:
    return line.replace("\\", "").replace('":', '": ')


def test_an_array_that_a_crash_cut_off_is_read_up_to_there(recordings: Any, tmp_path: Path) -> None:
    text = (recordings.folder / "recorded_candidates" / "workflow_output.json").read_text()
    (tmp_path / "cut.json").write_text(text[: len(text) * 3 // 4])
    found = read(tmp_path / "cut.json")
    assert (found.files.candidates, found.refused["malformed"]) == (12, 1)


def test_damaged_lines_are_counted_and_do_not_hide_what_the_file_is(tmp_path: Path) -> None:
    lines = ["{broken", "\ufeff", *(json.dumps(row) for row in _rows(4)), "[1]", "7", "\x00\x01"]
    (tmp_path / "rows").write_text("\n".join(lines))
    found = read(tmp_path / "rows")
    assert found.answers == [[("a0", 0.0), ("a1", 1.0)], [("a2", 2.0), ("a3", 3.0)]]
    assert found.refused == {"malformed": 5}
    assert [one.line for one in found.bad] == [1, 2, 7, 8, 9]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"question": "Why?", "answer": "So."}\n', "an object with the keys 'question', 'answer'"),
        ("{}\n", "an object with no keys"),
        (
            json.dumps(dict.fromkeys("abcdefghij")),
            "an object with the keys 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h' and 2 more",
        ),
        ("Once upon a time\nthere was", "'Once upon a time'"),
        ("[1, 2]", "'1'"),
        ('{"a": 1}\r{"a": 2}', '\'{"a": 1} {"a": 2}\''),
        ("id,name\na,b\n", "'id,name'"),
        ("name,score\na,1\n", "'name,score'"),
        ("x" * 200_000, f"'{'x' * 120}'"),
    ],
)
def test_what_is_not_known_is_one_line_that_says_what_would_be(tmp_path: Path, text: str, shown: str) -> None:
    (tmp_path / "file.txt").write_text(text)
    with pytest.raises(InputError) as error:
        read(tmp_path / "file.txt")
    said = str(error.value)
    assert f"file.txt' holds no recorded candidates: it starts with {shown}; the nearest known format is " in said
    assert "; docs/recorded_candidates.md describes every format" in said
    assert len(said) < 500 + len(str(tmp_path))
    assert "\n" not in said


@pytest.mark.parametrize(
    ("row", "nearest"),
    [
        ({"prompt": "q", "said": "a", "reward": 1.0}, "rollout rows"),
        ({"prompt": "q", "responses": ["a"], "candidates": 3}, "turn rows"),
        ({"question": "q"}, "flat candidate rows"),
    ],
)
def test_the_nearest_format_is_named(tmp_path: Path, row: dict[str, object], nearest: str) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=f"the nearest known format is {nearest}: "):
        read(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("depth", "candidates"), [(100, {2}), (190, {2}), (210, {1}), (990, {1}), (1010, {1}), (5000, {1})]
)
def test_however_deep_a_row_is_nested_it_is_read_or_counted(tmp_path: Path, depth: int, candidates: set[int]) -> None:
    deep = f'{{"prompt": "q", "response": "a", "reward": 1, "notes": {"[" * depth}{"]" * depth}}}'
    (tmp_path / "rows").write_text("\n".join([json.dumps(_rows(1)[0]), deep]))
    found = read(tmp_path / "rows")
    assert found.files.candidates + found.refused["malformed"] == 2
    assert found.files.candidates in candidates


def test_half_a_surrogate_pair_is_refused_or_kept_where_it_does_no_harm(tmp_path: Path) -> None:
    row = {"prompt": "q", "response": "a", "reward": 1.0}
    half = "\ud800"
    rows = [{**row, "response": half}, {**row, "prompt": half}, {**row, "note": half}, {**row, "example_id": half}]
    found = read(write_lines(tmp_path / "rows", rows))
    assert found.refused == {"invalid_unicode": 3}
    assert [turn.candidates[0].metadata for turn in found.turns] == [{"note": half}]
    payload = json.dumps({"data": {"turn_id": "t", "input": half, "output": "a", "score": 1.0}}, ensure_ascii=False)
    step = {"id": "u", "parent_id": "p", "type": "TTC_END", "name": "dpo_candidate_move", "payload": payload}
    (tmp_path / "full.txt").write_text(f"intermediate_data: {json.dumps(step)}\n")
    assert read(tmp_path / "full.txt").refused == {"invalid_unicode": 1}


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    found = read(tmp_path / "empty", write_lines(tmp_path / "rows", _rows(2)))
    assert found.formats == ["nothing in it", "rollout rows"]
    assert found.files.problems == [f"{tmp_path / 'empty'} holds nothing"]


def test_files_are_named_by_patterns_each_once(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c[1].jsonl"):
        (tmp_path / name).write_text("")
    names = ("c[1].jsonl", "a*.jsonl", "*.jsonl", ".")
    found = files_found(str(tmp_path / name) for name in names)
    assert [Path(file.uri).name for file in found] == ["c[1].jsonl", "a.jsonl", "b.jsonl"]
    with pytest.raises(InputError, match=r"there is no file .*none\*'"):
        files_found([str(tmp_path / "none*")])
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    assert [file.uri for file in files_found([str(tmp_path / "a.jsonl"), str(tmp_path / "link.jsonl")])] == [
        str(tmp_path / "a.jsonl")
    ]


_VALUES = (
    st.none() | st.text() | st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2), max_size=2)
)
_ARRAYS = st.lists(st.dictionaries(st.text(max_size=5), _VALUES, max_size=3), min_size=1, max_size=4)


@pytest.mark.parametrize("indent", [None, 0, 2])
@given(rows=_ARRAYS)
def test_the_elements_of_an_array_are_its_records(
    tmp_path_factory: pytest.TempPathFactory, indent: int | None, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "array.json"
    path.write_text(json.dumps(rows, indent=indent))
    assert [parsed(piece.text) for piece in pieces(Place(str(path)))] == rows


@pytest.mark.parametrize("indent", [None, 2])
def test_elements_of_an_array_do_not_compete_though_they_have_one_id(tmp_path: Path, indent: int | None) -> None:
    answers = [[{"response": f"{letter}{place}", "score": place} for place in range(2)] for letter in "ab"]
    turns = [{"example_id": "e", "prompt": "Why?", "candidates": candidates} for candidates in answers]
    (tmp_path / "turns.json").write_text(json.dumps(turns, indent=indent))
    items = [
        {
            "intermediate_steps": [
                {
                    "payload": {
                        "event_type": "TTC_END",
                        "name": DEFAULT_STEP_NAME,
                        "data": {"turn_id": "t", "input": "Why?", "output": one["response"], "score": one["score"]},
                    }
                }
                for one in candidates
            ]
        }
        for candidates in answers
    ]
    (tmp_path / "workflow_output.json").write_text(json.dumps(items, indent=indent))
    expected = [[("a0", 0.0), ("a1", 1.0)], [("b0", 0.0), ("b1", 1.0)]]
    assert read(tmp_path / "turns.json").answers == expected
    assert read(tmp_path / "workflow_output.json").answers == expected


def test_rewards_do_not_compete_with_scores(tmp_path: Path) -> None:
    rollouts = write_lines(tmp_path / "rollouts", [{**row, "note": "n"} for row in _rows(2)])
    flat = write_lines(tmp_path / "flat", [{"prompt": "q0", "response": "c", "score": 7}])
    found = read(rollouts, flat)
    assert found.answers == [[("a0", 0.0), ("a1", 1.0)], [("c", 7.0)]]
    assert found.turns[0].candidates[0].metadata == {"note": "n"}


def test_an_array_whose_elements_end_on_lines_with_more_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text('[\n  {\n    "a": 1},\n  {"a": 2}\n]\n')
    assert [parsed(piece.text) for piece in pieces(Place(str(path)))] == [{"a": 1}, {"a": 2}]
