"""Files to records: lines, elements of a JSON array or whole documents, compressed or not."""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import IO, Any, NamedTuple, cast

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_document, parse_json
from nat_dpo_pipeline.records.places import Place

_GZIP, _ZSTD, _BOM = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf"


class Piece(NamedTuple):
    """The text of a record, and the line from 1 where it starts."""

    line: int
    text: bytes


class NotJson(NamedTuple):
    """What takes the place of a value in a record that is no JSON."""

    text: str


def parsed(text: bytes) -> object:
    """The JSON value, which may be NaN and hold escaped halves of surrogate pairs; NotJson for anything else."""
    try:
        return parse_json(text)
    except InputError:
        return NotJson(text.decode(errors="replace"))


def _document(text: bytes) -> object:
    """As `parsed`; of an array, an element that cannot be kept is null."""
    try:
        return parse_document(text)
    except InputError:
        return NotJson(text.decode(errors="replace"))


def pieces(place: Place) -> Iterator[Piece]:
    """The records of a file, one at a time; blank lines are left out.

    An array whose elements have their braces on lines of their own, indented, as NAT writes it, is read by element;
    another array, and a document that is one object, whole. What is cut off or damaged is the last piece. Raises
    InputError for a file that cannot be read.
    """
    try:
        with decompressed(place) as file:
            raw = _lines(file)
            lines = _filled(raw)
            first, second = next(lines, None), next(lines, None)
            if first is not None and second is not None and _is_pretty_array(first, second):
                yield from _elements(second, raw)
            elif first is not None and _starts_a_document(first, second):
                yield from _whole([piece for piece in (first, second, *lines) if piece is not None])
            else:
                yield from (piece for piece in (first, second) if piece is not None)
                yield from lines
    except OSError as error:
        raise InputError(f"cannot read {str(place)!r}: {error.strerror or error}") from error


def are_lines(place: Place) -> bool:
    """Whether each line of a file is a record by itself."""
    with decompressed(place) as file:
        lines = _filled(_lines(file))
        first, second = next(lines, None), next(lines, None)
        if first is None:
            return True
        return not _starts_a_document(first, second)


def is_compressed(place: Place) -> bool:
    """Whether a file is compressed with gzip or Zstandard, as its first bytes say."""
    with place.open() as file:
        start = file.read(4)
    return bool(start.startswith(_GZIP) or start == _ZSTD)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    try:
        yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error):
        yield b"(the compressed data end here)"
    except OSError as error:
        # pyarrow has no other type for data that are damaged.
        if error.errno is not None:
            raise
        yield b"(the compressed data end here)"


def _filled(lines: Iterator[bytes]) -> Iterator[Piece]:
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(_BOM) if number == 1 else line
        if text.strip():
            yield Piece(number, text)


def _is_pretty_array(first: Piece, second: Piece) -> bool:
    if first.text.strip() != b"[" or second.text.strip() != b"{":
        return False
    # Without indentation the braces of an element look like those within it.
    return second.text[:1].isspace()


def _starts_a_document(first: Piece, second: Piece | None) -> bool:
    """Whether the first line is the beginning of something, or a whole array; not if the second is JSON by itself."""
    if not first.text.lstrip().startswith((b"[", b"{")):
        return False
    if second is None or first.text.strip() == b"[":
        return True
    return isinstance(parsed(first.text), NotJson) and isinstance(parsed(second.text), NotJson)


def _elements(first: Piece, lines: Iterator[bytes]) -> Iterator[Piece]:
    """The elements of an array: each ends at the first line that closes a brace as far to the left as it opened."""
    indent = first.text[: len(first.text) - len(first.text.lstrip())]
    last = {indent + brace + end for brace in (b"}", b"},") for end in (b"\n", b"\r\n", b"")}
    start, texts = first.line, [first.text]
    for number, line in enumerate(lines, start=first.line + 1):
        if not texts:
            if not line.strip():
                continue
            start = number
        texts.append(line)
        # A hot path: an evaluation has millions of lines.
        if line in last or (len(texts) == 1 and _is_whole(line)):
            yield Piece(start, b"".join(texts).rstrip().removesuffix(b","))
            texts = []
    if texts and b"".join(texts).strip() != b"]":
        yield from _rest(start, b"".join(texts))


def _rest(start: int, text: bytes) -> Iterator[Piece]:
    """What no line closed: elements that end elsewhere, or one that is cut off."""
    value = _document(b"[" + text)
    if isinstance(value, list):
        yield from _list_elements(start, value)
    else:
        yield Piece(start, text)


def _is_whole(line: bytes) -> bool:
    return line.strip() != b"{" and not isinstance(parsed(line.rstrip().removesuffix(b",")), NotJson)


def _whole(lines: list[Piece]) -> Iterator[Piece]:
    """A document's elements if it is an array, else itself; broken lines where it is neither."""
    text = b"".join(line.text for line in lines)
    value = _document(text)
    if isinstance(value, list):
        yield from _list_elements(lines[0].line, value)
    elif isinstance(value, NotJson):
        yield from lines
    else:
        yield Piece(lines[0].line, text)


def _list_elements(line: int, elements: list[object]) -> Iterator[Piece]:
    return (Piece(line, json.dumps(element).encode()) for element in elements)


@contextmanager
def decompressed(place: Place) -> Iterator[IO[bytes]]:
    """Open a file for reading as it was before it was compressed."""
    with place.open() as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(_GZIP):
            with gzip.open(file) as unzipped:
                yield cast(IO[bytes], unzipped)
        elif start == _ZSTD:
            with _zstandard(file, place) as unzipped:
                yield unzipped
        else:
            yield file if place.is_local else BufferedReader(file)


@contextmanager
def _zstandard(file: Any, place: Place) -> Iterator[IO[bytes]]:
    try:
        import pyarrow
    except ImportError as error:
        raise InputError(
            f"{str(place)!r} is compressed with Zstandard, which needs pyarrow: pip install "
            "'nat-dpo-pipeline[parquet]', or decompress it"
        ) from error
    with pyarrow.CompressedInputStream(file, "zstd") as stream, BufferedReader(stream) as unzipped:
        yield unzipped
