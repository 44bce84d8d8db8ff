"""A table of ids and scores for trajectories: CSV with a header, JSONL, or what an evaluator of `nat eval` writes.

Ids are those of trajectories, of their sessions, or of the items of an evaluation. The last of several scores of one
id counts.
"""

import csv
from collections.abc import Iterator

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.json_values import mapping
from nat_dpo_pipeline.records.values import (
    Found,
    Read,
    Record,
    RecordedFormat,
    Refused,
    Shared,
    named,
)

_ID_NAMES = ("id", "trajectory_id", "session_id", "item_id")
_SCORE_NAMES = ("score", "reward")


def _row(value: object) -> tuple[str, object] | None:
    row = mapping(value)
    name = next((found for key in _ID_NAMES if (found := named(row.get(key)))), None)
    score = next((key for key in _SCORE_NAMES if key in row), None)
    return None if name is None or score is None else (name, row[score])


def _items(value: object) -> list[object]:
    items = mapping(value).get("eval_output_items")
    return items if isinstance(items, list) else [value]


def _recognises(value: object) -> bool:
    return not {"prompt", "response"} & mapping(value).keys() and any(map(_row, _items(value)))


def _reader(shared: Shared) -> Read:
    def read(record: Record) -> Iterator[Found | Refused]:
        for item in _items(record.value):
            row = _row(item)
            if row is None:
                yield Refused(RefusalReason.MALFORMED)
            else:
                shared.scores[row[0]] = row[1]

    return read


SCORE_TABLE = RecordedFormat(
    name="score table",
    looks_like='{"id", "score"}',
    recognises=_recognises,
    reader=_reader,
    is_table=True,
)


def _cells(value: object) -> list[str]:
    text = value if isinstance(value, str) else ""
    try:
        return [cell.strip() for cell in next(csv.reader([text.strip()]), [])]
    except csv.Error:
        return []


def _recognises_header(value: object) -> bool:
    cells = _cells(value)
    return any(name in cells for name in _ID_NAMES) and any(name in cells for name in _SCORE_NAMES)


def _csv_reader(shared: Shared) -> Read:
    headers: dict[int, list[str]] = {}

    def read(record: Record) -> Iterator[Found | Refused]:
        cells = _cells(record.value)
        header = headers.setdefault(record.file, cells)
        if header is cells:
            return
        row = _row(dict(zip(header, cells, strict=False)))
        if row is None:
            yield Refused(RefusalReason.MALFORMED)
        else:
            shared.scores[row[0]] = row[1]

    return read


CSV_TABLE = RecordedFormat(
    name="score table (CSV)",
    looks_like="id,score",
    recognises=_recognises_header,
    reader=_csv_reader,
    is_json=False,
    is_table=True,
)
