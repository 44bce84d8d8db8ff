"""Rows in JSONL files, compressed or not."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.records.bad_input import BadInput
from nat_dpo_pipeline.records.columns import Columns, Key
from nat_dpo_pipeline.records.plain_lines import plain_columns
from nat_dpo_pipeline.records.ranges import UNREADABLE, InputRange, Troubles, first_line
from nat_dpo_pipeline.records.rows import Rows

_BYTES_A_READ = 1 << 20
_BOM = b"\xef\xbb\xbf"

#: A line without its end, and the offset in the file, or in what its compressed content would be, where it starts.
Line = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class _Block:
    """Some lines without the end of the last, and the offset where the first starts."""

    offset: int
    content: bytes

    def lines(self) -> Iterator[Line]:
        """Those that are filled."""
        offset = self.offset
        for text in self.content.split(b"\n"):
            if text.strip():
                yield offset, text
            offset += len(text) + 1

    def without_bom(self) -> "_Block":
        return _Block(len(_BOM), self.content[len(_BOM) :]) if self.content.startswith(_BOM) else self

    def without_first(self) -> "_Block":
        first, _, others = self.content.partition(b"\n")
        return _Block(self.offset + len(first) + 1, others)

    def before(self, stop: int) -> "_Block":
        """The lines that start before the offset."""
        if stop <= self.offset:
            return _Block(self.offset, b"")
        end = self.content.find(b"\n", stop - 1 - self.offset)
        return self if end < 0 else _Block(self.offset, self.content[:end])


def line_columns(part: InputRange, troubles: Troubles, block_bytes: int, *, with_raw: bool) -> Iterator[Columns]:
    """The rows of the lines that start in the part, in blocks of so many bytes."""
    for block in _blocks(part, troubles, block_bytes):
        # Most blocks hold nothing but flat rows as they should be.
        plain = plain_columns(block.content, with_raw=with_raw)
        yield _columns(block, part, troubles) if plain is None else plain


def _columns(block: _Block, part: InputRange, troubles: Troubles) -> Columns:
    rows = Rows()
    for offset, text in block.lines():
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
        row = parse_json(text)
    except InputError:
        return f"not JSON: {text[:60].decode(errors='replace')!r}"
    return row if isinstance(row, dict) else f"not an object: {text[:60].decode(errors='replace')!r}"


def read_lines(part: InputRange, troubles: Troubles) -> Iterator[Line]:
    """The filled lines that start in the part. A file that breaks off too soon is told."""
    for block in _blocks(part, troubles, _BYTES_A_READ):
        yield from block.lines()


def _blocks(part: InputRange, troubles: Troubles, size: int) -> Iterator[_Block]:
    """The lines that start in the part, in blocks of at least so many bytes."""
    for place, run in enumerate(_runs(part, troubles, size)):
        block = run
        if place == 0:
            block = run.without_first() if part.start else run.without_bom()
        block = block.before(part.stop)
        if block.content:
            yield block


def _runs(part: InputRange, troubles: Troubles, size: int) -> Iterator[_Block]:
    """What the file holds from the byte before the part on, in whole lines, until one ends behind the part."""
    start = offset = _first_byte(part)
    held: list[bytes] = []
    for content in _contents(part, troubles):
        if not content:
            yield _Block(start, b"".join(held))
            return
        held.append(content)
        offset += len(content)
        is_enough = offset - start >= size or offset >= part.stop
        if is_enough and (end := content.rfind(b"\n")) >= 0:
            held[-1] = content[:end]
            yield _Block(start, b"".join(held))
            held = [content[end + 1 :]]
            start = offset - len(held[0])
            if start >= part.stop:
                return
    # It broke off.
    yield _Block(start, b"".join(held).rpartition(b"\n")[0])


def _first_byte(part: InputRange) -> int:
    """Where to start reading: the byte before the part tells whether a line starts with it."""
    return max(part.start - 1, 0)


def _contents(part: InputRange, troubles: Troubles) -> Iterator[bytes]:
    """What the file holds from the byte before the part on, a read at a time, and nothing at its end.

    One that breaks off is told, and has no end.
    """
    offset = _first_byte(part)
    try:
        with part.place.open() as file:
            file.seek(offset)
            stream = pyarrow.CompressedInputStream(file, str(part.kind)) if part.kind.is_compressed else file
            while content := stream.read(_BYTES_A_READ):
                offset += len(content)
                yield content
            yield b""
    except UNREADABLE as error:
        troubles.files += 1
        reason = f"the rest cannot be read: {first_line(error)}"
        troubles.tell(BadInput(part.uri, _line_at(part, offset), None, reason))


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
    for block in line_columns(part, Troubles(), sys.maxsize, with_raw=False):
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
