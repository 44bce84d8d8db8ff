"""What cannot be read is kept out, counted and told with file and line; the rest is paired."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.errors import ConfigurationError, InputError
from nat_dpo_pipeline.pairing import engines
from nat_dpo_pipeline.pairing.api import pair_files
from nat_dpo_pipeline.pairing.options import FileKind, PairedFiles, PairingOptions
from tests.pairing.candidates import snapshot, write_jsonl, write_parquet

LENIENT = PairingOptions(max_bad_share=1.0, shard_bytes=500)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LocalEngine", lambda *_: engines.InlineEngine())


def rows(turns: int) -> list[dict[str, Any]]:
    return [
        {"example_id": "e", "turn_id": f"t{turn}", "prompt": "p", "response": f"{turn} {n}", "score": float(n)}
        for turn in range(turns)
        for n in range(2)
    ]


def paired(path: Path, options: PairingOptions = LENIENT) -> PairedFiles:
    return pair_files([str(path)], str(path.parent / "out"), PairingRules(), options=options)


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bad_line_is_told_by_its_number(tmp_path: Path, scattered: bool, compressed: bool) -> None:
    lines = [json.dumps(row) for row in rows(30)]
    lines[41], lines[50:50] = "{broken", ["[1, 2]", ""]
    path = tmp_path / ("rows.jsonl.gz" if compressed else "rows.jsonl")
    text = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(text) if compressed else text)
    result = paired(path, PairingOptions(max_bad_share=1.0, shard_bytes=500, scattered=scattered))
    assert result.bad_rows == 2
    assert [str(one).replace(str(path), "F") for one in result.bad] == [
        "F:42: not JSON: '{broken'",
        "F:51: not an object: '[1, 2]'",
    ]
    assert sum(result.pairs.values()) == 29


def test_candidates_that_are_none_are_counted_and_no_reason_to_fail(tmp_path: Path) -> None:
    good = rows(1)[0]
    odd = [
        {**good, "score": float("nan")},
        {**good, "score": None},
        {**good, "score": "high"},
        {**good, "response": "\ud800"},
        {**good, "response": None},
        {**good, "prompt": " "},
        {**good, "turn_id": None},
    ]
    result = paired(write_jsonl(tmp_path / "rows.jsonl", [*rows(1), *odd]), PairingOptions())
    assert result.refused == {
        "invalid_unicode": 1,
        "malformed": 1,
        "missing_prompt": 1,
        "missing_response": 1,
        "missing_score": 1,
        "missing_turn_id": 1,
        "score_not_finite": 1,
    }
    assert (result.candidates, result.bad_rows) == (2, 0)


def test_a_compressed_file_that_breaks_off_is_told(tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows(20_000)).encode()
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(text)[:-4000])
    result = paired(path)
    assert 0 < result.candidates < 40_000
    assert "the rest cannot be read" in str(result.bad[0])
    with pytest.raises(InputError, match=r"1 of 1 files cannot be read, and max_bad_share is 0\.001"):
        pair_files([str(path)], str(tmp_path / "strict"), PairingRules())


def test_a_damaged_row_group_is_kept_out(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", rows(40), rows_a_group=20)
    group = parquet.ParquetFile(path).metadata.row_group(2)
    start, stop = (group.column(0).dictionary_page_offset, group.column(5).data_page_offset)
    content = bytearray(path.read_bytes())
    content[start:stop] = b"\xff" * (stop - start)
    path.write_bytes(content)
    result = paired(path)
    assert (result.bad_rows, result.candidates) == (20, 60)
    assert str(result.bad[0]).startswith(f"{path}, row group 2: ")


def test_a_file_that_is_none_is_told_beside_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_jsonl(folder / "a.jsonl", rows(9))
    (folder / "b.parquet").write_bytes(b"no Parquet")
    result = pair_files([str(folder)], str(tmp_path / "out"), PairingRules(), options=LENIENT)
    assert sum(result.pairs.values()) == 9
    assert "b.parquet: cannot be read" in str(result.bad[0])


def test_too_many_bad_rows_fail_and_a_larger_share_completes_the_run(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", rows(20))
    with path.open("a") as file:
        file.write("bad\n" * 10)
    with pytest.raises(InputError, match=r"10 of 50 rows cannot be read, and max_bad_share is 0\.1.*rows\.jsonl:41: "):
        paired(path, PairingOptions(max_bad_share=0.1))
    again = paired(path, PairingOptions(max_bad_share=0.2))
    assert (again.bad_rows, again.resumed) == (10, again.shards)


def test_a_file_is_what_it_holds_whatever_it_is_called(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.txt", rows(3))
    assert sum(paired(path).pairs.values()) == 3
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert sum(pair_files([str(path)], str(tmp_path / "zipped"), PairingRules()).pairs.values()) == 3
    path.write_text("Once upon a time\n")
    with pytest.raises(InputError, match="holds no recorded candidates: it starts with 'Once upon a time'"):
        pair_files([str(path)], str(tmp_path / "text"), PairingRules())


def test_parquet_without_the_columns_of_candidates_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"prompt": ["p"], "answer": ["a"]}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="has no column 'response'; it has prompt, answer"):
        paired(tmp_path / "rows.parquet")


def test_no_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*missing\.jsonl"):
        paired(tmp_path / "missing.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no file of candidates in"):
        paired(tmp_path / "empty")


def test_an_empty_file_makes_an_empty_dataset(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    result = paired(tmp_path / "rows.jsonl")
    assert (result.candidates, list(result.files)) == (0, [])
    assert "manifest.json" in snapshot(tmp_path / "out")


def test_the_same_column_twice_is_refused(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(rows(2))
    parquet.write_table(table.append_column("prompt", table["prompt"]), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows.parquet' has several columns 'prompt': leave one of them"):
        paired(tmp_path / "rows.parquet")


@pytest.mark.parametrize("scattered", [False, True])
def test_what_has_no_value_in_python_does_not_end_a_run(tmp_path: Path, scattered: bool) -> None:
    table = pyarrow.Table.from_pylist(rows(2))
    bad = pyarrow.array([b"\xff", b"a", b"b", b"c"]).view(pyarrow.string())
    late = pyarrow.array([2**62, 0, 1, 2], pyarrow.timestamp("ms"))
    table = table.append_column("notes", bad).append_column("at", late).append_column("flaw", late)
    parquet.write_table(table.set_column(2, "prompt", bad), tmp_path / "rows.parquet")
    result = paired(tmp_path / "rows.parquet", PairingOptions(formats=("trl", "helpsteer3"), scattered=scattered))
    assert result.refused == {"invalid_unicode": 1}


def test_a_format_without_fixed_columns_is_no_parquet(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", rows(1))
    with pytest.raises(ConfigurationError, match="'ultrafeedback' has no fixed columns"):
        paired(path, PairingOptions(formats=("ultrafeedback",), kind=FileKind.PARQUET))


@pytest.mark.parametrize(
    "setting",
    [{"memory": 1}, {"workers": 0}, {"validation_fraction": 1.0}, {"max_bad_share": 2.0}, {"retries": -1}],
)
def test_impossible_options_are_refused(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ConfigurationError, match=name):
        PairingOptions(**setting)
