"""Lines are read once each, wherever files are cut, and quickly only where that makes no difference."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.pairing.api import pair_files
from nat_dpo_pipeline.records import lines
from nat_dpo_pipeline.records.columns import Columns
from nat_dpo_pipeline.records.plain_lines import plain_columns
from nat_dpo_pipeline.records.ranges import InputKind, InputRange, ReadCounts
from nat_dpo_pipeline.records.rows import Rows
from tests.pairing.candidates import make_rows, write_jsonl

ROW = {"example_id": "e", "turn_id": "t", "prompt": "p", "response": "r", "score": 1.5}
GOOD = json.dumps(ROW).encode()
TWICE = GOOD + b" " + GOOD
COLUMNS = {one.name for one in fields(Columns)}
# A few rows, to be found in every example, that only one of two readers might take for what they are not.
ODD = [
    b"",
    b"  ",
    b"{",
    b"}",
    b'{"a": [{}',
    b"{}]}",
    b"{}, {}",
    b"{}{}",
    TWICE,
    GOOD + b"\r",
    b"\xef\xbb\xbf" + GOOD,
]
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just({"flaw": "truncated"})
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "?"]), "content": st.sampled_from("abc ") | values}
)
flat_rows = st.fixed_dictionaries(
    {"example_id": st.text(max_size=2), "turn_id": st.text(max_size=2)}
    | {"prompt": st.text(max_size=3) | st.lists(messages, max_size=3)}
    | {"response": st.text(max_size=9), "score": st.floats(allow_nan=False, allow_infinity=False)},
    optional={"run_id": st.text(max_size=2) | st.none(), "flaw": st.just("refusal") | values, "metadata": values},
)
good_lines = st.builds(lambda row, escaped: json.dumps(row, ensure_ascii=escaped).encode(), flat_rows, st.booleans())
other_lines = st.dictionaries(st.sampled_from([*ROW, "run_id"]), values).map(lambda row: json.dumps(row).encode())
all_lines = st.lists(good_lines | other_lines | st.sampled_from(ODD), min_size=1, max_size=6)


# Compressed files are read whole, by one part.
contents = st.lists(st.binary(max_size=6), max_size=9).map(b"\n".join)
plain_contents = contents.filter(lambda content: not content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))


@given(content=plain_contents, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_line_is_read_once_wherever_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, data: st.DataObject
) -> None:
    monkeypatch.setattr(lines, "_BYTES_A_READ", data.draw(st.integers(1, 9)))
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    inner = data.draw(st.lists(st.integers(0, len(content)), unique=True))
    cuts = sorted({0, *inner, len(content)})
    parts = [InputRange(str(path), InputKind.LINES, start, stop, len(content)) for start, stop in pairwise(cuts)]
    found = [line for part in parts for block in lines.blocks(part, ReadCounts(), 9) for line in block.lines()]
    bom = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    offsets = [bom, *(place + 1 for place, byte in enumerate(content) if byte == ord("\n"))]
    texts = content[bom:].split(b"\n")
    assert found == [(offset, text) for offset, text in zip(offsets, texts, strict=True) if text.strip()]


@given(texts=all_lines, with_raw=st.booleans())
@example(texts=[TWICE, GOOD[:20], GOOD[20:]], with_raw=False)
@example(texts=[GOOD[:-1] + b', "other": "\xff"}'], with_raw=False)
def test_rows_read_at_once_are_those_read_one_by_one(texts: Sequence[bytes], with_raw: bool) -> None:
    columns = plain_columns(b"\n".join(texts), with_raw=with_raw)
    if columns is None:
        return
    rows = Rows()
    for text in texts:
        row = lines.parsed_row(text)
        assert not isinstance(row, str), row
        assert rows.add(row, text, 0) == []
    for name in COLUMNS if with_raw else COLUMNS - {"raw"}:
        assert getattr(columns, name).tolist() == getattr(rows.columns(), name).tolist(), name


@given(st.lists(flat_rows, min_size=1), st.booleans())
def test_rows_as_they_should_be_are_read_at_once(rows: list[dict[str, object]], as_messages: bool) -> None:
    prompt = (
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}] if as_messages else "Why?"
    )
    same = {"prompt": prompt, "flaw": None, "metadata": {"flaw": "truncated"}}
    texts = [json.dumps({**row, **same, "example_id": f"e{row['example_id']}"}) for row in rows]
    columns = plain_columns("\n".join(texts).encode(), with_raw=False)
    assert columns is not None
    assert columns.is_flawed.all()


def test_a_compressed_file_of_one_turn_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps({**ROW, "score": n}) + "\n" for n in range(3)).encode()))
    assert pair_files([str(path)], str(tmp_path / "out"), PairingRules()).candidates == 3


def test_lines_that_end_as_on_windows_are_the_same_rows(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "unix.jsonl", make_rows(30))
    (tmp_path / "windows.jsonl").write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    made = [
        pair_files([str(tmp_path / name)], str(tmp_path / f"out-{name}"), PairingRules())
        for name in ("unix.jsonl", "windows.jsonl")
    ]
    assert made[0].pairs == made[1].pairs
    assert [file.sha256 for file in made[0].files] == [file.sha256 for file in made[1].files]
