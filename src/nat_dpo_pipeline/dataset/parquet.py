"""Rows as Parquet. pyarrow is an extra, and imported when it is used."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.dataset.files import WrittenFile, written_file
from nat_dpo_pipeline.dataset.formats.format import Column, Row
from nat_dpo_pipeline.errors import ConfigurationError, InputError

_ROWS_A_GROUP = 5000
_BYTES_A_GROUP = 16 << 20


def check_parquet() -> None:
    """Raise ConfigurationError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'nat-dpo-pipeline[parquet]', or leave parquet out"
        ) from error


class ParquetRows:
    """Rows to a Parquet file, a row group at a time."""

    def __init__(self, path: Path, columns: Mapping[str, Column]) -> None:
        from pyarrow import parquet

        self._path = path
        self._schema = arrow_schema(columns)
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Row] = []
        self._waiting_size = self._rows = 0

    def add(self, row: Row, size: int) -> None:
        """Add a row, of which the JSON has `size` bytes."""
        self._waiting.append(row)
        self._waiting_size += size
        if len(self._waiting) >= _ROWS_A_GROUP or self._waiting_size >= _BYTES_A_GROUP:
            self._flush()

    def finish(self) -> WrittenFile:
        """What was written; `path` is the file's name."""
        self._flush()
        self._writer.close()
        return written_file(self._path, self._rows)

    def close(self) -> None:
        self._writer.close()

    def _flush(self) -> None:
        from pyarrow import Table

        if self._waiting:
            self._writer.write_table(Table.from_pylist(self._waiting, schema=self._schema))
        self._rows += len(self._waiting)
        self._waiting.clear()
        self._waiting_size = 0


def arrow_schema(columns: Mapping[str, Column]) -> Any:
    """The columns as a pyarrow schema."""
    import pyarrow

    return pyarrow.schema([pyarrow.field(name, _arrow_type(column)) for name, column in columns.items()])


def _arrow_type(column: Column) -> Any:
    import pyarrow

    if isinstance(column, str):
        return pyarrow.type_for_alias(column)
    if isinstance(column, list):
        return pyarrow.list_(_arrow_type(column[0]))
    return pyarrow.struct([pyarrow.field(name, _arrow_type(inner)) for name, inner in column.items()])


def read_rows(path: Path) -> Iterator[Mapping[str, object]]:
    """The rows of a Parquet file, a batch at a time. Raises InputError for what is none."""
    check_parquet()
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{str(path)!r} is no Parquet file that can be read: {error}") from error
