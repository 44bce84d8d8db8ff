"""Parts of input files as whole turns."""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.records import lines, row_groups
from nat_dpo_pipeline.records.columns import Columns, Key, joined
from nat_dpo_pipeline.records.ranges import UNREADABLE, InputKind, InputRange, Troubles

_BYTES_A_BLOCK = 8 << 20
_BYTES_BEHIND = 1 << 18


def read_columns(
    part: InputRange, troubles: Troubles, *, with_raw: bool, block_bytes: int = _BYTES_A_BLOCK
) -> Iterator[Columns]:
    """The rows of the part, in blocks of about so many bytes; `with_raw` with all that is known of a candidate."""
    if part.kind is InputKind.PARQUET:
        return row_groups.group_columns(part, troubles, block_bytes, with_raw=with_raw)
    return lines.line_columns(part, troubles, block_bytes, with_raw=with_raw)


def whole_turns(part: InputRange, refused: Counter[str], troubles: Troubles, *, with_raw: bool) -> Iterator[Columns]:
    """The turns that begin in the part, each whole, also where it goes on behind the part's end.

    Rows that name no turn are counted by the part that they are in.
    """
    before = _key_before(part)
    held: Columns | None = None
    for block in read_columns(part, troubles, with_raw=with_raw):
        rows = _named(block, refused)
        if before is not None:
            rows = rows.take(slice(rows.leading(before), None))
        if not len(rows):
            continue
        before = None
        rows = rows if held is None else joined((held, rows))
        cut = _start_of_last(rows)
        if cut:
            yield rows.take(slice(0, cut))
        held = rows.take(slice(cut, None))
    if held is not None:
        yield held if part.stop >= part.end else _completed(held, _behind(part, with_raw=with_raw))


def _behind(part: InputRange, *, with_raw: bool) -> Iterator[Columns]:
    return read_columns(part.rest, Troubles(), with_raw=with_raw, block_bytes=_BYTES_BEHIND)


def _key_before(part: InputRange) -> Key | None:
    if part.start == 0:
        return None
    try:
        return row_groups.key_before(part) if part.kind is InputKind.PARQUET else lines.key_before(part)
    except UNREADABLE:
        return None


def _named(rows: Columns, refused: Counter[str]) -> Columns:
    named = rows.with_turn()
    if len(named) < len(rows):
        refused[str(RefusalReason.MISSING_TURN_ID)] += len(rows) - len(named)
    return named


def _start_of_last(rows: Columns) -> int:
    borders = np.flatnonzero(rows.borders())
    return int(borders[-1]) + 1 if len(borders) else 0


def _completed(held: Columns, behind: Iterable[Columns]) -> Columns:
    key, parts = held.key(0), [held]
    for block in behind:
        rows = block.with_turn()
        count = rows.leading(key)
        parts.append(rows.take(slice(0, count)))
        if count < len(rows):
            break
    return joined(parts)
