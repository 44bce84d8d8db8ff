"""Rows as Parquet. pyarrow is an extra, and imported when it is used."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from nat_dpo_pipeline.dataset.files import WrittenFile, replaced
from nat_dpo_pipeline.dataset.formats.format import Column
from nat_dpo_pipeline.errors import ConfigurationError, InputError

_BYTES_A_GROUP = 16 << 20


def check_parquet() -> None:
    """Raise ConfigurationError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "Parquet needs pyarrow: pip install 'nat-dpo-pipeline[parquet]', or leave parquet out"
        ) from error


def write_parquet(lines: Path, columns: Mapping[str, Column]) -> WrittenFile:
    """Write the rows in a file of JSON lines beside it as Parquet, some at a time; `path` is the new file's name."""
    from pyarrow import Table, parquet

    path, schema, rows = lines.with_suffix(".parquet"), arrow_schema(columns), 0
    with (
        lines.open("rb") as file,
        replaced(path) as sink,
        parquet.ParquetWriter(sink, schema, compression="zstd") as writer,
    ):
        while group := file.readlines(_BYTES_A_GROUP):
            writer.write_table(Table.from_pylist([orjson.loads(line) for line in group], schema=schema))
            rows += len(group)
    return sink.written(path.name, rows)


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
