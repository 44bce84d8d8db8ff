"""Input as a user names it → files, their formats, and the ranges that they are read by."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.records.atif import ATIF, check_scores
from nat_dpo_pipeline.records.formats import RECORDED_FORMATS, format_named, recognised
from nat_dpo_pipeline.records.mapping import name_of
from nat_dpo_pipeline.records.pieces import are_lines, is_compressed, parsed, pieces
from nat_dpo_pipeline.records.places import Place, checked_input
from nat_dpo_pipeline.records.ranges import BadInput, FileCounts, InputKind, InputRange, ReadCounts, first_line
from nat_dpo_pipeline.records.values import Cut, Record, RecordedFormat, Refused, Shared

Columns = Mapping[str, tuple[str, ...]]
_NO_COLUMNS: Columns = {}
_IN_FOLDERS = tuple(
    f".{name}{compression}" for name in ("parquet", "jsonl", "ndjson") for compression in ("", ".gz", ".zst")
)
_PARQUET, _NOTHING = "rows in Parquet", "nothing in it"
# Text is some four times as large as what it is compressed to.
_COMPRESSED = 4


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file as it was when it was found. `modified` is in nanoseconds."""

    uri: str
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class Sources:
    """All that is read, in order: first the files that must be read together.

    `total_bytes` is how large it is, about, decompressed. `files` are all files, of which tables are read already;
    `bad` are those that are none of their kind. `scores` are those of tables by id.
    """

    ranges: Sequence[InputRange]
    total_bytes: int
    files: Sequence[FileCounts]
    bad: Sequence[BadInput]
    scores: dict[str, object] = field(default_factory=dict)


def files_found(inputs: Iterable[str]) -> list[InputFile]:
    """Return the files, patterns expanded, those of folders by name, each once.

    Raises InputError for what is not there, and ConfigurationError for a scheme that nothing here knows.
    """
    named = list(inputs)
    found: dict[str, Place] = {}
    for place in (place for given in named for place in _places(given)):
        found.setdefault(_identity(place), place)
    if not found:
        raise InputError(f"there is no file of candidates in {', '.join(map(repr, named)) or 'no input'}")
    return [_file(place) for place in found.values()]


def _identity(place: Place) -> str:
    return os.path.realpath(place.path) if place.is_local else place.uri


def _file(place: Place) -> InputFile:
    info = place.info()
    return InputFile(place.uri, info.size, info.modified) if info else InputFile(place.uri, 0, 0)


def _places(given: str) -> Iterator[Place]:
    # A file may have a bracket or a star in its name.
    is_pattern = "://" not in given and not Path(given).exists()
    matching = sorted(glob.glob(given, recursive=True)) if is_pattern else [given]  # noqa: PTH207 - an absolute pattern
    if not matching:
        raise InputError(f"there is no file {given!r} to read recorded candidates from")
    for one in matching:
        place = checked_input(one)
        info = place.info()
        if info is not None and not info.is_file:
            yield from (place / name for name in place.files() if name.endswith(_IN_FOLDERS))
        else:
            yield place


def read_sources(
    files: Sequence[InputFile], step_name: str, at_once: int = sys.maxsize, columns: Columns = _NO_COLUMNS
) -> Sources:
    """Recognise the files, cut them into ranges of at most so many bytes, and read tables of scores.

    `columns` maps roles to the columns of tables.

    Raises InputError for a file that is in no known format, before anything is taken of any, and for a table of scores
    that matches no trajectory.
    """
    ranges: list[InputRange] = []
    bad: list[BadInput] = []
    counted: list[FileCounts] = []
    shared = Shared(step_name)
    for number, file in enumerate(files):
        place = Place(file.uri)
        if _is_parquet(place):
            counted.append(
                FileCounts(file.uri, _cut_groups(place, number, at_once, ranges, bad, columns), 0, 0, Counter())
            )
            continue
        known = recognised(place, columns)
        read = ReadCounts()
        if known is not None and known.is_table:
            _read_table(place, known, number, shared, read)
        elif known is not None:
            ranges += _ranges(place, file.size, known.name, number, at_once)
        name = _NOTHING if known is None else known.looks_like if known.translate else known.name
        counted.append(FileCounts(file.uri, name, read.records, 0, read.left_out))
    check_scores(shared.scores, [one.place for one in ranges if one.format == ATIF.name])
    ranges.sort(key=_together)
    total = sum(one.stop - one.start if one.kind is InputKind.LINES and one.end < sys.maxsize else 0 for one in ranges)
    whole = {one.number for one in ranges if one.kind is not InputKind.LINES or one.end == sys.maxsize}
    total += sum(files[number].size * _COMPRESSED for number in whole)
    return Sources(ranges, total, counted, bad, shared.scores)


def _together(one: InputRange) -> str:
    """Sort those of a format that is read together in front, and leave all others in their order."""
    is_together = one.format and format_named(one.format).cut is Cut.TOGETHER
    return one.format if is_together else "\U0010ffff"


def _is_parquet(place: Place) -> bool:
    if place.name.endswith(".parquet"):
        return True
    with place.open() as file:
        return bool(file.read(4) == b"PAR1")


def _ranges(place: Place, size: int, name: str, number: int, at_once: int) -> Iterator[InputRange]:
    if format_named(name).cut is not Cut.LINES or not are_lines(place):
        yield InputRange(place.uri, InputKind.PIECES, 0, 1, 1, name, number)
    elif is_compressed(place):
        yield InputRange(place.uri, InputKind.LINES, 0, sys.maxsize, sys.maxsize, name, number)
    else:
        count = max(-(-size // at_once), 1)
        cuts = [size * part // count for part in range(count + 1)]
        yield from (
            InputRange(place.uri, InputKind.LINES, start, stop, size, name, number) for start, stop in pairwise(cuts)
        )


def _cut_groups(
    place: Place, number: int, at_once: int, ranges: list[InputRange], bad: list[BadInput], columns: Columns
) -> str:
    """Add the ranges of a Parquet file, and return what it is in words."""
    from nat_dpo_pipeline.records.row_groups import UNREADABLE, opened, table_in

    try:
        with opened(place) as file:
            table = table_in(file, place.uri, columns)
            sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups)]
    except UNREADABLE as error:
        bad.append(BadInput(place.uri, None, None, f"cannot be read: {first_line(error)}"))
        return _PARQUET
    cuts, held = [0], 0
    for group, size in enumerate(sizes):
        held += size
        if held >= at_once or group == len(sizes) - 1:
            cuts.append(group + 1)
            held = 0
    name = "" if table is None else name_of(table)
    ranges += [
        InputRange(place.uri, InputKind.PARQUET, start, stop, len(sizes), name, number)
        for start, stop in pairwise(cuts)
    ]
    return _PARQUET if table is None else f"{_PARQUET}, {table.label}"


def _read_table(place: Place, known: RecordedFormat, number: int, shared: Shared, counts: ReadCounts) -> None:
    assert known.reader is not None  # noqa: S101 - for the type checker
    read = known.reader(shared)
    for line, text in pieces(place):
        counts.records += 1
        value = parsed(text) if known.is_json else text.decode(errors="replace").strip()
        if not isinstance(value, dict if known.is_json else str):
            counts.bad_rows += 1
            continue
        for found in read(Record(number, line, value)):
            assert isinstance(found, Refused)  # noqa: S101 - a table holds no candidates
            counts.refused[found.reason] += 1


def counted_files(files: Sequence[FileCounts], counts: Mapping[int, ReadCounts]) -> list[FileCounts]:
    """Return the files with what was read of each, by its number."""
    return [
        replace(file, records=one.records, candidates=one.candidates, refused=one.left_out)
        if (one := counts.get(number)) is not None
        else file
        for number, file in enumerate(files)
    ]


def problems_of(files: Sequence[FileCounts], step_name: str, other_names: Iterable[str]) -> Iterator[str]:
    """Yield why files hold no candidates, as far as that is known."""
    names = ", ".join(map(repr, sorted(other_names)))
    formats = {one.name: one for one in RECORDED_FORMATS}
    without = [
        file for file in files if not (file.candidates or (file.format in formats and formats[file.format].is_table))
    ]
    for file in without:
        hint = formats[file.format].hint if file.format in formats else ""
        if file.format == _NOTHING:
            yield f"{file.path} holds nothing"
        elif hint and not names:
            yield f"{file.path} holds no candidates: {hint}"
    if names and without:
        yield f"no step is called {step_name!r}, but there are {names}: set ttc_step_name (--step-name)"
