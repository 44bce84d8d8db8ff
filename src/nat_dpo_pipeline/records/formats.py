"""The formats of recorded candidates, and which one a file is in, by what its first records say."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import islice

from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.records.atif import ATIF
from nat_dpo_pipeline.records.atof import ATOF
from nat_dpo_pipeline.records.candidate_rows import FLAT_ROWS, ROLLOUT_ROWS, TURN_ROWS
from nat_dpo_pipeline.records.csv_rows import csv_rows, is_csv
from nat_dpo_pipeline.records.generate_full import GENERATE_FULL
from nat_dpo_pipeline.records.mapping import name_of, table_named, table_of
from nat_dpo_pipeline.records.nat_file import NAT_FILE
from nat_dpo_pipeline.records.nemo_gym import NEMO_GYM
from nat_dpo_pipeline.records.pieces import NotJson, Piece, parsed, pieces
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.score_table import CSV_TABLE, SCORE_TABLE
from nat_dpo_pipeline.records.values import Cut, RecordedFormat
from nat_dpo_pipeline.records.workflow_output import WORKFLOW_OUTPUT

RECORDED_FORMATS = (
    TURN_ROWS,
    NEMO_GYM,
    FLAT_ROWS,
    ROLLOUT_ROWS,
    WORKFLOW_OUTPUT,
    NAT_FILE,
    GENERATE_FULL,
    ATOF,
    ATIF,
    SCORE_TABLE,
    CSV_TABLE,
)
# The first lines may be damaged, or the first item of an evaluation another one than those after it.
_RECORDS_LOOKED_AT = 20
_CHARACTERS_SHOWN = 120
_KEYS_SHOWN = 8


_NOTHING_GIVEN: Mapping[str, tuple[str, ...]] = {}
# In front of the name of a table's format, whose rows are CSV.
_CSV = "csv "
_BY_NAME = {one.name: one for one in RECORDED_FORMATS}


def format_named(name: str) -> RecordedFormat:
    """Return the format of this name."""
    if name.startswith(_CSV):
        return _of_csv(name)
    return _BY_NAME.get(name) or _of_table(name)


@cache
def _of_table(name: str) -> RecordedFormat:
    table = table_named(name)
    assert table is not None  # noqa: S101 - for the type checker
    return RecordedFormat(
        name=name, looks_like=table.label, recognises=lambda _: False, translate=table.row, cut=Cut.LINES
    )


@cache
def _of_csv(name: str) -> RecordedFormat:
    return replace(_of_table(name.removeprefix(_CSV)), name=name, records=csv_rows, cut=Cut.FILES)


def recognised(place: Place, given: Mapping[str, tuple[str, ...]] = _NOTHING_GIVEN) -> RecordedFormat | None:
    """Return the format of a file; None of one that holds nothing. Raises InputError for an unknown one.

    `given` maps roles to columns of a table; without it a table is known by usual names of its columns.
    """
    first: Piece | None = None
    values: list[object] = []
    for piece in islice(pieces(place), _RECORDS_LOOKED_AT):
        first = first or piece
        value = parsed(piece.text)
        values.append(value)
        if given:
            continue
        is_json = not isinstance(value, NotJson)
        said = value.text if isinstance(value, NotJson) else value
        for one in RECORDED_FORMATS:
            if one.is_json is is_json and one.recognises(said):
                return one
    if first is None:
        return None
    if (table := _table(place, values, given)) is not None:
        return table
    near = _nearest(first)
    raise InputError(
        f"{str(place)!r} holds no recorded candidates: it starts with {_start(first)}; the nearest known format is "
        f"{near.name}: {near.looks_like}; a table of your own is read with --map prompt=COLUMN,response=COLUMN,"
        "score=COLUMN; docs/recorded_candidates.md describes every format"
    )


def _table(place: Place, values: list[object], given: Mapping[str, tuple[str, ...]]) -> RecordedFormat | None:
    where = repr(str(place))
    if isinstance(values[0], NotJson):
        row = next((row for _, row in csv_rows(place)), None) if is_csv(values[0].text) else None
        table = None if row is None else table_of(row, given, where)
        return None if table is None else _of_csv(_CSV + name_of(table))
    row = next((value for value in values if isinstance(value, dict)), None)
    table = None if row is None else table_of(row, given, where)
    return None if table is None else _of_table(name_of(table))


def _nearest(piece: Piece) -> RecordedFormat:
    """Return the format with the most keys of the record, flat candidate rows for a record that shares none."""
    keys = mapping(parsed(piece.text)).keys()
    return max((FLAT_ROWS, *RECORDED_FORMATS), key=lambda one: sum(f'"{key}"' in one.looks_like for key in keys))


def named_keys(row: Mapping[str, object]) -> str:
    """Return the first keys of a row for a message, and the number of the others."""
    named = ", ".join(f"{key!r:.40}" for key in islice(row, _KEYS_SHOWN))
    more = len(row) - _KEYS_SHOWN
    return f"the keys {named}" + (f" and {more} more" if more > 0 else "") if row else "no keys"


def _start(piece: Piece) -> str:
    value = parsed(piece.text)
    if isinstance(value, dict):
        return f"an object with {named_keys(value)}"
    text = " ".join(piece.text[:_CHARACTERS_SHOWN].decode(errors="replace").split())
    return repr(text)
