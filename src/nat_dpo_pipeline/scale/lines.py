"""Rows in JSONL files, compressed or not."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow

from nat_dpo_pipeline.scale.columns import Columns, Key
from nat_dpo_pipeline.scale.inputs import UNREADABLE, InputRange, Troubles, first_line
from nat_dpo_pipeline.scale.options import BadInput
from nat_dpo_pipeline.scale.rows import Rows, plain_columns

_BYTES_A_READ = 1 << 20
_BOM = b"\xef\xbb\xbf"

#: A line without its end, and the offset in the file, or in what its compressed content would be, where it starts.
Line = tuple[int, bytes]


def line_columns(part: InputRange, troubles: Troubles, block_bytes: int) -> Iterator[Columns]:
    """The rows of the lines that start in the part, in blocks of so many bytes."""
    waiting: list[Line] = []
    start = part.start
    for lines in _read(part, troubles):
        waiting += lines
        if waiting and waiting[-1][0] - start >= block_bytes:
            yield _columns(_filled(waiting, part), part, troubles)
            start, waiting = waiting[-1][0], []
    if waiting:
        yield _columns(_filled(waiting, part), part, troubles)


def _filled(lines: Sequence[Line], part: InputRange) -> list[Line]:
    return [line for line in lines if line[0] < part.stop and line[1].strip()]


def _columns(lines: Sequence[Line], part: InputRange, troubles: Troubles) -> Columns:
    try:
        # Most blocks hold nothing but flat rows as they should be.
        plain = plain_columns([orjson.loads(text) for _, text in lines])
    except orjson.JSONDecodeError:
        plain = None
    if plain is not None:
        return plain
    rows = Rows()
    for offset, text in lines:
        row = parsed_row(text)
        if isinstance(row, str):
            tell_row(troubles, part, offset, row)
        else:
            rows.add(row, text, offset)
    return rows.columns()


def tell_row(troubles: Troubles, part: InputRange, offset: int, reason: str) -> None:
    """Count a line that is no row. Which line it is takes a look at all before it, so only of the first few."""
    troubles.rows += 1
    if troubles.has_room:
        troubles.tell(BadInput(part.uri, _line_at(part, offset), None, reason))


def parsed_row(text: bytes) -> Mapping[str, Any] | str:
    """The object on a line, which may hold NaN and escaped halves of surrogate pairs; else what is wrong with it."""
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            return f"not JSON: {text[:60].decode(errors='replace')!r}"
    return row if isinstance(row, dict) else f"not an object: {text[:60].decode(errors='replace')!r}"


def read_lines(part: InputRange, troubles: Troubles) -> Iterator[Line]:
    """The filled lines that start in the part. A file that breaks off too soon is told."""
    for lines in _read(part, troubles):
        yield from _filled(lines, part)


def _read(part: InputRange, troubles: Troubles) -> Iterator[Sequence[Line]]:
    """The lines that start in the part, a read at a time, the last ones with some behind it."""
    offset = part.start
    try:
        for lines in _lines_from(part):
            yield lines
            if lines:
                offset = lines[-1][0]
            if offset >= part.stop:
                return
    except UNREADABLE as error:
        troubles.files += 1
        reason = f"the rest cannot be read: {first_line(error)}"
        troubles.tell(BadInput(part.uri, _line_at(part, offset), None, reason))


def _lines_from(part: InputRange) -> Iterator[Sequence[Line]]:
    """The lines that start at or behind the part's start, to the end of the file."""
    with part.place.open() as file:
        if part.kind.is_compressed:
            with pyarrow.CompressedInputStream(file, str(part.kind)) as stream:
                yield from _split(stream, 0, is_first=True)
        else:
            offset = max(part.start - 1, 0)
            file.seek(offset)
            yield from _split(file, offset, is_first=part.start == 0)


def _split(file: Any, offset: int, *, is_first: bool) -> Iterator[Sequence[Line]]:
    """Lines with their offsets. Unless it is the file's first line, what comes before the first line end is none."""
    parts: list[bytes] = []
    is_whole = is_first
    while content := file.read(_BYTES_A_READ):
        texts = content.split(b"\n")
        parts.append(texts[0])
        if len(texts) == 1:
            continue
        texts[0], parts = b"".join(parts), [texts.pop()]
        lines = []
        for text in texts:
            lines.append((offset, text))
            offset += len(text) + 1
        yield _without_bom(lines if is_whole else lines[1:])
        is_whole = True
    if is_whole:
        yield _without_bom([(offset, b"".join(parts))])


def _without_bom(lines: list[Line]) -> list[Line]:
    if lines and lines[0][0] == 0:
        lines[0] = (0, lines[0][1].removeprefix(_BOM))
    return lines


def key_before(part: InputRange) -> Key | None:
    """The turn of the last row that starts before the part."""
    window = 1 << 16
    while True:
        start = max(part.start - window, 0)
        before = InputRange(part.uri, part.kind, start, part.start, part.end)
        keys = [rows.key(len(rows) - 1) for rows in _named_rows(before)]
        if keys or start == 0:
            return keys[-1] if keys else None
        window *= 4


def _named_rows(part: InputRange) -> Iterator[Columns]:
    for block in line_columns(part, Troubles(), sys.maxsize):
        rows = block.with_turn()
        if len(rows):
            yield rows


def _line_at(part: InputRange, offset: int) -> int:
    """The number, from 1, of the line that starts at the offset."""
    number, left = 1, offset
    with part.place.open() as file:
        stream = pyarrow.CompressedInputStream(file, str(part.kind)) if part.kind.is_compressed else file
        while left and (content := stream.read(min(left, _BYTES_A_READ))):
            number += content.count(b"\n")
            left -= len(content)
    return number
