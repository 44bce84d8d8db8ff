"""Rows of CSV and TSV files with a header."""

import csv
import sys
from collections.abc import Iterator, Mapping
from io import TextIOWrapper

from nat_dpo_pipeline.records.pieces import decompressed
from nat_dpo_pipeline.records.places import Place

_DELIMITERS = ("\t", ",", ";")


def is_csv(header: str) -> bool:
    """Return True for a first line with several columns."""
    return any(delimiter in header for delimiter in _DELIMITERS)


def csv_rows(place: Place) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the rows with the line where each ends; cells that are not there are None."""
    csv.field_size_limit(sys.maxsize)
    with decompressed(place) as file:
        text = TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
        header = text.readline()
        delimiter = next((one for one in _DELIMITERS if one in header), ",")
        names = next(csv.reader([header], delimiter=delimiter))
        lines = csv.DictReader(text, names, delimiter=delimiter)
        for row in lines:
            yield lines.line_num + 1, {name: value for name, value in row.items() if name is not None}
