"""Rows in JSONL files, compressed or not."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from sys import maxsize
from typing import Any

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.records.columns import Columns
from nat_dpo_pipeline.records.pieces import decompressed
from nat_dpo_pipeline.records.plain_lines import plain_columns
from nat_dpo_pipeline.records.ranges import BadInput, InputRange, ReadCounts, first_line
from nat_dpo_pipeline.records.rows import Rows

_BYTES_A_READ = 1 << 20
_BYTES_A_COMPRESSED_READ = 1 << 16
_BOM = b"\xef\xbb\xbf"
# What reading a file may raise when the file is damaged.
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error)

#: A line without its end, and the offset in the file, or in what its compressed content would be, where it starts.
Line = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Block:
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

    def without_bom(self) -> "Block":
        return Block(len(_BOM), self.content[len(_BOM) :]) if self.content.startswith(_BOM) else self

    def without_first(self) -> "Block":
        first, _, others = self.content.partition(b"\n")
        return Block(self.offset + len(first) + 1, others)

    def before(self, stop: int) -> "Block":
        """The lines that start before the offset."""
        if stop <= self.offset:
            return Block(self.offset, b"")
        end = self.content.find(b"\n", stop - 1 - self.offset)
        return self if end < 0 else Block(self.offset, self.content[:end])


def line_columns(part: InputRange, counts: ReadCounts, block_bytes: int, *, with_raw: bool) -> Iterator[Columns]:
    """Yield the rows of the lines that start in the part, in blocks of so many bytes."""
    for block in blocks(part, counts, block_bytes):
        yield block_columns(block, part, counts, with_raw=with_raw)


def block_columns(block: "Block", part: InputRange, counts: ReadCounts, *, with_raw: bool) -> Columns:
    """Return the rows of a block."""
    # Most blocks hold nothing but flat rows as they should be.
    plain = plain_columns(block.content, with_raw=with_raw)
    if plain is not None:
        counts.records += len(plain)
        counts.candidates += len(plain)
        return plain
    rows = Rows()
    for offset, row, text in rows_in(block, part, counts):
        tell_refusals(counts, part, offset, rows.add(row, text, part.line_id(offset)))
    counts.candidates += len(rows)
    return rows.columns()


def rows_in(block: "Block", part: InputRange, counts: ReadCounts) -> Iterator[tuple[int, Mapping[str, Any], bytes]]:
    """Yield the objects on the lines of a block, with their offset and text; a line that is none is counted."""
    for offset, text in block.lines():
        counts.records += 1
        row = parsed_row(text)
        if isinstance(row, str):
            tell_row(counts, part, offset, row)
        else:
            yield offset, row, text


def tell_refusals(counts: ReadCounts, part: InputRange, offset: int, reasons: Sequence[str]) -> None:
    """Count candidates that are none."""
    for reason in reasons:
        counts.refused[reason] += 1
        if counts.has_room:
            counts.tell(BadInput(part.uri, _line_at(part, offset), None, reason))


def tell_row(counts: ReadCounts, part: InputRange, offset: int, reason: str) -> None:
    """Count a line that is no row. Which line it is takes a look at all before it, so only of the first few."""
    counts.bad_rows += 1
    if counts.has_room:
        counts.tell(BadInput(part.uri, _line_at(part, offset), None, reason))


def parsed_row(text: bytes) -> Mapping[str, Any] | str:
    """The object on a line, which may hold NaN and escaped halves of surrogate pairs; else what is wrong with it."""
    try:
        row = parse_json(text)
    except InputError:
        return f"not JSON: {text[:60].decode(errors='replace')!r}"
    return row if isinstance(row, dict) else f"not an object: {text[:60].decode(errors='replace')!r}"


def blocks(part: InputRange, counts: ReadCounts, size: int) -> Iterator[Block]:
    """The lines that start in the part, in blocks of at least so many bytes."""
    for place, run in enumerate(_runs(part, counts, size)):
        block = run
        if place == 0:
            block = run.without_first() if part.start else run.without_bom()
        block = block.before(part.stop)
        if block.content:
            yield block


def _runs(part: InputRange, counts: ReadCounts, size: int) -> Iterator[Block]:
    """What the file holds from the byte before the part on, in whole lines, until one ends behind the part."""
    start = offset = _first_byte(part)
    held: list[bytes] = []
    for content in _contents(part, counts):
        if not content:
            yield Block(start, b"".join(held))
            return
        held.append(content)
        offset += len(content)
        is_enough = offset - start >= size or offset >= part.stop
        if is_enough and (end := content.rfind(b"\n")) >= 0:
            held[-1] = content[:end]
            yield Block(start, b"".join(held))
            held = [content[end + 1 :]]
            start = offset - len(held[0])
            if start >= part.stop:
                return
    # It broke off.
    yield Block(start, b"".join(held).rpartition(b"\n")[0])


def _first_byte(part: InputRange) -> int:
    """Where to start reading: the byte before the part tells whether a line starts with it."""
    return max(part.start - 1, 0)


def _contents(part: InputRange, counts: ReadCounts) -> Iterator[bytes]:
    """What the file holds from the byte before the part on, a read at a time, and nothing at its end.

    One that breaks off is told, and has no end.
    """
    offset = _first_byte(part)
    # Of compressed data that break off what comes in the same read is lost.
    at_once = _BYTES_A_READ if part.end < maxsize else _BYTES_A_COMPRESSED_READ
    try:
        with decompressed(part.place) as file:
            if offset:
                file.seek(offset)
            while content := file.read1(at_once):  # type: ignore[attr-defined]
                offset += len(content)
                yield content
            yield b""
    except _UNREADABLE as error:
        counts.bad_files = 1
        reason = f"the rest cannot be read: {first_line(error)}"
        counts.tell(BadInput(part.uri, _line_at(part, offset), None, reason))


def _line_at(part: InputRange, offset: int) -> int:
    """The number, from 1, of the line that starts at the offset."""
    number, left = 1, offset
    with decompressed(part.place) as file:
        while left and (content := file.read1(min(left, _BYTES_A_COMPRESSED_READ))):  # type: ignore[attr-defined]
            number += content.count(b"\n")
            left -= len(content)
    return number
