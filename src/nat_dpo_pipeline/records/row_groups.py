"""Rows in Parquet files."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from nat_dpo_pipeline.core.marks import MARKS
from nat_dpo_pipeline.core.rendering import split_replies
from nat_dpo_pipeline.errors import CandidateRefused, InputError
from nat_dpo_pipeline.json_text import json_bytes
from nat_dpo_pipeline.records.columns import FLAT, Columns, Ints, objects
from nat_dpo_pipeline.records.mapping import GROUPS, QUESTION, Table, table_named, table_of
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.ranges import BadInput, InputRange, ReadCounts, first_line
from nat_dpo_pipeline.records.rows import Rows

_REQUIRED = ("prompt", "response", "score")
_KEYS = ("run_id", "example_id", "turn_id")
_COLUMNS = (*_KEYS, *_REQUIRED)
# What reading a file may raise when the file is damaged, or holds what Python has no value for (a date of year 0).
UNREADABLE = (pyarrow.ArrowException, OSError, EOFError, ValueError, OverflowError)
_MOST_ROWS = 1 << 15
# Columns that may change what a row means.
_LOOKED_AT = MARKS | {"flaw", "tools"}
# Refused as such.
_NO_TEXT = "\udcff"


def opened(place: Place) -> Any:
    """Open a file that reads little ahead, so that memory does not follow the size of row groups."""
    return parquet.ParquetFile(place.filesystem.open_input_file(place.path), buffer_size=1 << 20, pre_buffer=False)


def check_columns(file: Any, path: str) -> None:
    """Raise InputError unless the file has the columns of flat rows, each once."""
    names = file.schema_arrow.names
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise InputError(f"{path!r} has no column {missing[0]!r}; it has {', '.join(names)}")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path!r} has several columns {repeated!r}: leave one of them")


def table_in(file: Any, path: str, given: Mapping[str, tuple[str, ...]]) -> Table | None:
    """Return the table that a file holds; None of one with the columns of flat rows. Raises InputError for others."""
    names = file.schema_arrow.names
    if not given and (set(names) >= set(_REQUIRED) or not file.metadata.num_rows):
        check_columns(file, path)
        return None
    first = next(file.iter_batches(1, use_threads=False))
    found = table_of(_objects(first)[0], given, repr(path))
    if found is None:
        check_columns(file, path)
    return found


def _table_columns(table: Table, part: InputRange, counts: ReadCounts, block_bytes: int) -> Iterator[Columns]:
    """Yield the candidates of a table of somebody else's; each row is a turn by itself where it has several."""
    place = 0
    for batch in group_batches(part, counts, block_bytes, with_raw=True):
        rows = Rows()
        for row in _objects(batch):
            counts.records += 1
            line = part.line_id(part.start << _BITS_OF_A_PLACE | place)
            for reason in rows.add(table.row(row), json_bytes(row), line):
                counts.refused[reason] += 1
            place += 1
        counts.candidates += len(rows)
        yield rows.columns()


# Rows of a range of row groups are told apart by so many bits.
_BITS_OF_A_PLACE = 28


def group_columns(part: InputRange, counts: ReadCounts, block_bytes: int, *, with_raw: bool) -> Iterator[Columns]:
    """Yield the rows of the part's row groups; one that is damaged is told."""
    table = table_named(part.format)
    if table is not None:
        yield from _table_columns(table, part, counts, block_bytes)
        return
    for batch in group_batches(part, counts, block_bytes, with_raw=with_raw):
        yield batch_columns(batch, counts)[0]


def group_batches(part: InputRange, counts: ReadCounts, block_bytes: int, *, with_raw: bool) -> Iterator[Any]:
    """The record batches of the part's row groups, those columns that are needed."""
    try:
        file = opened(part.place)
    except UNREADABLE as error:
        counts.bad_files = 1
        counts.tell(BadInput(part.uri, None, None, f"cannot be read: {first_line(error)}"))
        return
    with file:
        names = _wanted(file.schema_arrow, with_raw=with_raw)
        for number in range(part.start, part.stop):
            yield from _batches_of(file, number, names, part, counts, block_bytes)


def _batches_of(
    file: Any, number: int, names: Sequence[str], part: InputRange, counts: ReadCounts, block_bytes: int
) -> Iterator[Any]:
    group = file.metadata.row_group(number)
    bytes_a_row = max(group.total_byte_size // max(group.num_rows, 1), 1)
    at_once = min(max(block_bytes // bytes_a_row, 64), _MOST_ROWS)
    read = 0
    try:
        for batch in file.iter_batches(at_once, row_groups=[number], columns=names, use_threads=False):
            yield batch
            read += batch.num_rows
    except UNREADABLE as error:
        counts.bad_rows += group.num_rows - read
        counts.tell(BadInput(part.uri, None, number, first_line(error)))


def _wanted(schema: Any, *, with_raw: bool) -> list[str]:
    """The columns that a row is made of; besides text and score of the others only what may hold a flaw."""
    others = [name for name in schema.names if name not in _COLUMNS]
    # Without a turn a row's question and task may be in other columns.
    looked_at = _LOOKED_AT if "turn_id" in schema.names else _LOOKED_AT | QUESTION | GROUPS
    if not with_raw:
        others = [
            name for name in others if name in looked_at or (name == "metadata" and _holds_flaw(schema.field(name)))
        ]
    return [name for name in _COLUMNS if name in schema.names] + others


def _holds_flaw(field: Any) -> bool:
    kind = field.type
    return bool(pyarrow.types.is_map(kind) or (pyarrow.types.is_struct(kind) and kind.get_field_index("flaw") >= 0))


def batch_columns(batch: Any, counts: ReadCounts) -> tuple[Columns, Ints]:
    """Return the candidates of a record batch, and their places in it; the others are counted."""
    counts.records += batch.num_rows
    plain = _plain_columns(batch)
    if plain is not None:
        counts.candidates += len(plain)
        return plain, np.arange(len(plain))
    own = [name for name in _COLUMNS if name in batch.schema.names]
    others = [name for name in batch.schema.names if name not in _COLUMNS]
    rows, kept = Rows(), []
    raw = _objects(batch.select(others)) if others else repeat({})
    values = zip(*(_values(batch.column(name)) for name in own), strict=True)
    for place, (known, rest) in enumerate(zip(values, raw, strict=False)):
        row = dict(zip(own, known, strict=True)) | {name: value for name, value in rest.items() if value is not None}
        try:
            rows.add_flat(row)
            kept.append(place)
        except CandidateRefused as refused:
            counts.refused[str(refused.reason)] += 1
    counts.candidates += len(rows)
    return rows.columns(), np.array(kept, dtype=np.int64)


def _plain_columns(batch: Any) -> Columns | None:
    """The columns as they are, where every value is as it should be; None where rows must be looked at one by one."""
    if not set(batch.schema.names) <= set(_COLUMNS) or any(column.null_count for column in batch.columns):
        return None
    if not all(_is_text(batch.column(name)) for name in batch.schema.names if name != "score"):
        return None
    if not pyarrow.types.is_float64(batch.column("score").type):
        return None
    try:
        values = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
    except UNREADABLE:
        return None
    if not np.isfinite(values["score"]).all() or any(not one or one.isspace() for one in values["prompt"]):
        return None
    if "example_id" not in values or "turn_id" not in values or not all(values["example_id"]):
        return None
    count = batch.num_rows
    return Columns(
        line=np.full(count, FLAT, dtype=np.int64),
        run_id=values.get("run_id", objects(repeat(""), count)),
        response=objects(split_replies(values["response"]), count),
        **{name: values[name] for name in ("example_id", "turn_id", "prompt", "score")},
        is_flawed=np.zeros(count, dtype=bool),
        raw=objects(repeat({}), count),
    )


def _is_text(column: Any) -> bool:
    return bool(pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type))


def _values(column: Any) -> Sequence[object]:
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        if _is_text(column) or (pyarrow.types.is_float64(column.type) and not column.null_count):
            return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
        return column.to_pylist()  # type: ignore[no-any-return]
    except UNREADABLE:
        batch = pyarrow.RecordBatch.from_arrays([column], ["it"])
        return [one["it"] for one in _objects(batch)]


def _objects(batch: Any) -> list[dict[str, object]]:
    """The rows, of which a value that cannot be read is None, or half of a surrogate pair where it is not UTF-8."""
    try:
        return batch.to_pylist(maps_as_pydicts="lossy")  # type: ignore[no-any-return]
    except UNREADABLE as error:
        if batch.num_rows > 1:
            return [one for row in range(batch.num_rows) for one in _objects(batch.slice(row, 1))]
        if batch.num_columns > 1:
            return [
                {name: value for one in batch.schema.names for name, value in _objects(batch.select([one]))[0].items()}
            ]
        return [{batch.schema.names[0]: _NO_TEXT if isinstance(error, UnicodeDecodeError) else None}]
