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


def write_parquet(lines: Path, columns: Mapping[str, Column], *, with_calls: bool) -> WrittenFile:
    """Write the rows in a file of JSON lines beside it as Parquet, some at a time.

    Messages with tool calls are JSON each: a struct would fill the arguments of a call with the keys of the others.
    """
    from pyarrow import Table, parquet

    path, rows = lines.with_suffix(".parquet"), 0
    schema = _schema_with_json(columns) if with_calls else arrow_schema(columns)
    read = _with_json if with_calls else orjson.loads
    with (
        lines.open("rb") as file,
        replaced(path) as sink,
        parquet.ParquetWriter(sink, schema, compression="zstd") as writer,
    ):
        while group := file.readlines(_BYTES_A_GROUP):
            table = Table.from_pylist([read(line) for line in group], schema=_stored(schema))
            writer.write_table(_typed(table, schema))
            rows += len(group)
    return sink.written(path.name, rows)


def _with_json(line: bytes) -> dict[str, object]:
    row: dict[str, object] = orjson.loads(line)
    return {name: _messages_as_json(value) for name, value in row.items()}


def _messages_as_json(value: object) -> object:
    if isinstance(value, list):
        return [orjson.dumps(one).decode() if isinstance(one, dict) else one for one in value]
    return value


def _schema_with_json(columns: Mapping[str, Column]) -> Any:
    """Return the columns as a pyarrow schema in which each message is JSON, which `datasets` 4.8 reads as an object."""
    import pyarrow

    fields, features = [], {}
    for name, column in {**columns, "tools": "string"}.items():
        is_json = isinstance(column, list) and isinstance(column[0], Mapping)
        fields.append(pyarrow.field(name, pyarrow.list_(pyarrow.json_()) if is_json else _arrow_type(column)))
        features[name] = _JSON if is_json else {"dtype": column, "_type": "Value"}
    return pyarrow.schema(fields, {"huggingface": orjson.dumps({"info": {"features": features}}).decode()})


def _stored(schema: Any) -> Any:
    """Return a schema with texts in the place of JSON, of which pyarrow makes no array."""
    import pyarrow

    texts = pyarrow.list_(pyarrow.string())
    return pyarrow.schema([one.with_type(texts) if _is_json(one.type) else one for one in schema])


def _is_json(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_list(kind) and kind.value_type == pyarrow.json_())


def _typed(table: Any, schema: Any) -> Any:
    """Return a table of texts with those that are JSON marked as such."""
    import pyarrow

    columns = []
    for field, column in zip(schema, table.columns, strict=True):
        texts = column.combine_chunks() if _is_json(field.type) else None
        if texts is not None:
            values = pyarrow.ExtensionArray.from_storage(pyarrow.json_(), texts.values)
            column = pyarrow.ListArray.from_arrays(texts.offsets, values)
        columns.append(column)
    return pyarrow.Table.from_arrays(columns, schema=schema)


_JSON: Mapping[str, object] = {"feature": {"_type": "Json"}, "_type": "List"}


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


def _json_columns(schema: Any) -> set[str]:
    """Return the columns of which each element is JSON, as `datasets` notes them."""
    noted = orjson.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = noted.get("info", {}).get("features", {}) if isinstance(noted, dict) else {}
    return {name for name, feature in features.items() if feature == _JSON}


def _read(row: Mapping[str, object], json_columns: set[str]) -> Mapping[str, object]:
    own = {
        name: [orjson.loads(one) for one in value] for name in json_columns if isinstance(value := row.get(name), list)
    }
    return {name: own.get(name, value) for name, value in row.items() if name != "tools" or value is not None}


def read_rows(path: Path) -> Iterator[Mapping[str, object]]:
    """The rows of a Parquet file, a batch at a time. Raises InputError for what is none."""
    check_parquet()
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            json_columns = _json_columns(file.schema_arrow)
            for batch in file.iter_batches(batch_size=1000):
                yield from (_read(row, json_columns) for row in batch.to_pylist())
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{str(path)!r} is no Parquet file that can be read: {error}") from error
