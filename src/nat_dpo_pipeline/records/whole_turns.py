"""Parts of input files as whole turns."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from nat_dpo_pipeline.records.columns import Columns, Key, joined
from nat_dpo_pipeline.records.ranges import InputKind, InputRange, ReadCounts
from nat_dpo_pipeline.records.reader import Reader

_BYTES_BEFORE = 1 << 16
_BYTES_BEHIND = 1 << 18


def whole_turns(part: InputRange, reader: Reader, counts: ReadCounts) -> Iterator[Columns]:
    """Yield the turns that begin in the part, each whole, also where it goes on behind the part's end."""
    before = None if part.start == 0 else _key_before(part, reader)
    held: Columns | None = None
    for block in reader.columns(part, counts):
        rows = block if before is None else block.take(slice(block.leading(before), None))
        if not len(rows):
            continue
        before = None
        rows = rows if held is None else joined((held, rows))
        cut = _start_of_last(rows)
        if cut:
            yield rows.take(slice(0, cut))
        held = rows.take(slice(cut, None))
    if held is not None:
        yield held if part.stop >= part.end else _completed(held, _behind(part, reader))


def _behind(part: InputRange, reader: Reader) -> Iterator[Columns]:
    return reader.columns(part.rest, ReadCounts(), block_bytes=_BYTES_BEHIND)


def _key_before(part: InputRange, reader: Reader) -> Key | None:
    """Return the turn of the last candidate before the part; where that cannot be read, None."""
    step = 1 if part.kind is InputKind.PARQUET else _BYTES_BEFORE
    start = part.start
    while start:
        start, stop = max(start - step, 0), start
        before = replace(part, start=start, stop=stop)
        try:
            keys = [rows.key(len(rows) - 1) for rows in reader.columns(before, ReadCounts()) if len(rows)]
        except (OSError, EOFError, ValueError):
            return None
        if keys:
            return keys[-1]
        step *= 1 if part.kind is InputKind.PARQUET else 4
    return None


def _start_of_last(rows: Columns) -> int:
    borders = np.flatnonzero(rows.borders())
    return int(borders[-1]) + 1 if len(borders) else 0


def _completed(held: Columns, behind: Iterable[Columns]) -> Columns:
    key, parts = held.key(0), [held]
    for rows in behind:
        count = rows.leading(key)
        parts.append(rows.take(slice(0, count)))
        if count < len(rows):
            break
    return joined(parts)
