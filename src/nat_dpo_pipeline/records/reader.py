"""Ranges of files of any format → candidates as columns."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.json_text import json_bytes
from nat_dpo_pipeline.records.columns import Columns
from nat_dpo_pipeline.records.formats import format_named
from nat_dpo_pipeline.records.lines import blocks, line_columns, rows_in, tell_refusals
from nat_dpo_pipeline.records.pieces import NotJson, parsed, pieces
from nat_dpo_pipeline.records.ranges import BadInput, InputKind, InputRange, ReadCounts
from nat_dpo_pipeline.records.rows import Rows
from nat_dpo_pipeline.records.values import Read, Record, RecordedFormat, Refused, Shared

_BYTES_A_BLOCK = 8 << 20
_CANDIDATES_A_BLOCK = 1 << 12


class Reader:
    """Reads ranges, in order; files of formats whose records belong together must meet the same reader.

    `with_raw`: with all that is known of a candidate besides its texts and score.
    """

    def __init__(self, shared: Shared, *, with_raw: bool) -> None:
        self._shared = shared
        self._with_raw = with_raw
        self._read_by = cache(self._new_read)

    def _new_read(self, name: str) -> Read:
        reader = format_named(name).reader
        assert reader is not None  # noqa: S101 - rows have none, and are read otherwise
        return reader(self._shared)

    def columns(self, part: InputRange, counts: ReadCounts, block_bytes: int = _BYTES_A_BLOCK) -> Iterator[Columns]:
        """Yield the candidates of a range, in blocks of about so many bytes."""
        if part.kind is InputKind.PARQUET:
            from nat_dpo_pipeline.records.row_groups import group_columns

            return group_columns(part, counts, block_bytes, with_raw=self._with_raw)
        if part.kind is InputKind.LINES and format_named(part.format).is_plain:
            return line_columns(part, counts, block_bytes, with_raw=self._with_raw)
        return self._columns_of_records(part, counts, block_bytes)

    def _columns_of_records(self, part: InputRange, counts: ReadCounts, block_bytes: int) -> Iterator[Columns]:
        found = self._in_lines if part.kind is InputKind.LINES else self._in_pieces
        rows = Rows()
        for _ in found(part, counts, rows, block_bytes):
            if len(rows) >= _CANDIDATES_A_BLOCK:
                counts.candidates += len(rows)
                yield rows.columns()
                rows.clear()
        counts.candidates += len(rows)
        yield rows.columns()

    def _in_lines(self, part: InputRange, counts: ReadCounts, rows: Rows, block_bytes: int) -> Iterator[None]:
        known = format_named(part.format)
        for block in blocks(part, counts, block_bytes):
            for offset, row, text in rows_in(block, part, counts):
                tell_refusals(counts, part, offset, self._take(known, part, offset, row, text, rows))
                yield

    def _in_pieces(self, part: InputRange, counts: ReadCounts, rows: Rows, _block_bytes: int) -> Iterator[None]:
        known = format_named(part.format)
        for line, text, value in _records(known, part):
            counts.records += 1
            if not isinstance(value, dict if known.is_json else str):
                counts.bad_rows += 1
                what = "not JSON" if isinstance(value, NotJson) else "not an object"
                counts.tell(BadInput(part.uri, line, None, f"{what}: {text[:60].decode(errors='replace')!r}"))
                continue
            # Elements of an array may stand on one line.
            for reason in self._take(known, part, counts.records, value, text, rows):
                counts.refused[reason] += 1
                counts.tell(BadInput(part.uri, line, None, reason))
            yield

    def _take(
        self, known: RecordedFormat, part: InputRange, place: int, value: Any, text: bytes, rows: Rows
    ) -> list[str]:
        """Take the candidates of the record at a place in its file; return the reasons of those that are refused."""
        if known.reader is None:
            row = _scored(value, known) if known.translate is None else known.translate(value)
            return rows.add(row, text, part.line_id(place))
        refused = []
        for found in self._read_by(known.name)(Record(part.number, place, value)):
            if isinstance(found, Refused):
                refused.append(str(found.reason))
            else:
                try:
                    rows.add_candidate((known.name, *found.scope), found.candidate)
                except CandidateRefused as error:
                    refused.append(str(error.reason))
        return refused


def _records(known: RecordedFormat, part: InputRange) -> Iterator[tuple[int, bytes, object]]:
    """Yield the records of a file that is not read line by line: where each is, its text, and its value."""
    if known.records is not None:
        for line, row in known.records(part.place):
            yield line, json_bytes(row), row
        return
    for line, text in pieces(part.place):
        yield line, text, parsed(text) if known.is_json else text.decode(errors="replace").strip()


def _scored(row: Any, known: RecordedFormat) -> Mapping[str, object]:
    """Return a row with its `score`. A reward is of another scale than scores, so that the two do not compete."""
    if known.score_name == "score":
        return row  # type: ignore[no-any-return]
    run_id = row.get("run_id")
    scope = f"{known.name}\x1f{'' if run_id is None else run_id}"
    others = {name: value for name, value in row.items() if name != known.score_name}
    return others | {"score": row.get(known.score_name), "run_id": scope}
