"""Rows to partitions by a hash of their turn, so that the candidates of a turn meet; and partitions back to rows.

A file of parts starts with the offsets of its partitions and of their end, 8 bytes each; then come the partitions, each
JSON lines or an Arrow IPC stream.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import orjson

from nat_dpo_pipeline.core.messages import prompt_json, reply_json
from nat_dpo_pipeline.json_text import json_bytes, parse_json
from nat_dpo_pipeline.pairing.tasks import Done, Job, Part, PartitionTask
from nat_dpo_pipeline.records.columns import FLAT, Columns, Ints, gathered, joined
from nat_dpo_pipeline.records.formats import format_named
from nat_dpo_pipeline.records.hashing import Hashes, buckets_of
from nat_dpo_pipeline.records.lines import block_columns, blocks
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.plain_lines import plain_columns
from nat_dpo_pipeline.records.ranges import InputKind, InputRange, ReadCounts
from nat_dpo_pipeline.records.reader import Reader
from nat_dpo_pipeline.records.rows import Rows
from nat_dpo_pipeline.records.values import Shared

PARTS = "parts"
#: The names of the files of parts, in the order of the input.
PARTS_LIST = "parts.json"
# In a line that was written anew: what tells turn rows apart.
LINE = "nat_dpo_line"
_SCORES = "scores.json"
_LINES, _ARROW = ".lines", ".arrow"
_BYTES_A_FILE = 64 << 20
_BYTES_A_BATCH = 8 << 20
_ROWS_A_BLOCK = 4096


def partition(task: PartitionTask) -> Done:
    """Write the candidates of ranges to files of parts."""
    shared = Shared(task.job.step_name, scores_in(task.job.state))
    reader = Reader(shared, with_raw=False)
    read: dict[int, ReadCounts] = {}
    names: list[str] = []
    for source in task.sources:
        counts = ReadCounts()
        is_ours = source.kind is InputKind.PARQUET and not source.format
        write = _partition_groups if is_ours else _partition_lines
        names += write(_PartFiles(task, len(names)), source, reader, counts)
        read.setdefault(source.number, ReadCounts()).add(counts)
    return Done(task.number, parts=names, read=read, other_names=sorted(shared.other_names))


def write_scores(state: Place, scores: Mapping[str, object]) -> None:
    """Keep the scores of tables for the tasks."""
    if scores:
        (state / _SCORES).write(json_bytes(scores))


def scores_in(state: Place) -> dict[str, object]:
    """Return the scores of tables by id."""
    return parse_json((state / _SCORES).read()) if (state / _SCORES).exists() else {}


class _PartFiles:
    """Names the files of a task, and writes them."""

    def __init__(self, task: PartitionTask, written: int) -> None:
        self.partitions, self.job = task.partitions, task.job
        self._task = task
        self._written = written

    def write(self, suffix: str, parts: Sequence[bytes]) -> str:
        name = f"{self._task.number:05}-{self._written:04}{suffix}"
        self._written += 1
        offsets = np.cumsum([8 * (self.partitions + 1), *map(len, parts)]).astype("<i8")
        with (self.job.state / PARTS / name).replaced() as sink:
            sink.write(offsets.tobytes())
            for part in parts:
                sink.write(part)
        return name


def _partition_lines(files: _PartFiles, source: InputRange, reader: Reader, counts: ReadCounts) -> Iterator[str]:
    found: list[Hashes] = []
    texts: list[bytes] = []
    size = 0
    for keys, lines in _keyed_lines(source, reader, counts):
        found.append(keys)
        texts += lines
        size += sum(map(len, lines))
        if size >= _BYTES_A_FILE:
            yield files.write(_LINES, _parts_of_lines(np.concatenate(found), texts, files.partitions))
            found, texts, size = [], [], 0
    if texts:
        yield files.write(_LINES, _parts_of_lines(np.concatenate(found), texts, files.partitions))


def _keyed_lines(source: InputRange, reader: Reader, counts: ReadCounts) -> Iterator[tuple[Hashes, list[bytes]]]:
    """Yield lines of candidates with the hashes of their turns: as they are where all are plain, else written anew."""
    if source.kind is InputKind.LINES and format_named(source.format).is_plain:
        for block in blocks(source, counts, _BYTES_A_BATCH):
            columns = block_columns(block, source, counts, with_raw=False)
            texts = [text for _, text in block.lines()]
            is_as_it_was = len(columns) == len(texts) and not (columns.line != FLAT).any()
            yield columns.turn_hashes(), texts if is_as_it_was else _lines_of(columns)
    else:
        for columns in reader.columns(source, counts):
            yield columns.turn_hashes(), _lines_of(columns)


def _lines_of(columns: Columns) -> list[bytes]:
    """Return candidates as flat rows, those of turn rows with what tells them apart."""
    return [json_bytes(_row_of(columns, row)) for row in range(len(columns))]


def _row_of(columns: Columns, row: int) -> dict[str, object]:
    prompt, line = columns.prompt[row], int(columns.line[row])
    return {
        **columns.raw[row],
        "run_id": columns.run_id[row],
        "example_id": columns.example_id[row],
        "turn_id": columns.turn_id[row],
        "prompt": prompt if isinstance(prompt, str) else prompt_json(prompt),
        "response": reply_json(columns.response[row]),
        "score": float(columns.score[row]),
        **({} if line == FLAT else {LINE: line}),
    }


def _parts_of_lines(keys: Hashes, texts: Sequence[bytes], partitions: int) -> list[bytes]:
    parts: list[list[bytes]] = [[] for _ in range(partitions)]
    for place, text in zip(buckets_of(keys, partitions).tolist(), texts, strict=True):
        parts[place].append(text)
    return [b"\n".join(part) for part in parts]


def _partition_groups(files: _PartFiles, source: InputRange, _reader: Reader, counts: ReadCounts) -> Iterator[str]:
    from nat_dpo_pipeline.records.row_groups import batch_columns, group_batches

    tables: list[Any] = []
    found: list[Hashes] = []
    size = 0
    for batch in group_batches(source, counts, _BYTES_A_BATCH, with_raw=files.job.with_raw):
        columns, places = batch_columns(batch, counts)
        found.append(columns.turn_hashes())
        tables.append(batch if len(places) == batch.num_rows else batch.take(pyarrow_array(places)))
        size += batch.nbytes
        if size >= _BYTES_A_FILE:
            yield files.write(_ARROW, _parts_of_batches(tables, np.concatenate(found), files.partitions))
            tables, found, size = [], [], 0
    if tables:
        yield files.write(_ARROW, _parts_of_batches(tables, np.concatenate(found), files.partitions))


def _parts_of_batches(batches: Sequence[Any], keys: Hashes, partitions: int) -> list[bytes]:
    import pyarrow

    table = pyarrow.Table.from_batches(batches)
    places = buckets_of(keys, partitions)
    order = np.argsort(places, kind="stable")
    taken = table.take(pyarrow_array(order))
    cuts = np.searchsorted(places[order], np.arange(partitions + 1)).tolist()
    return [_stream(taken.slice(start, stop - start)) if stop > start else b"" for start, stop in pairwise(cuts)]


def pyarrow_array(places: Ints) -> Any:
    """Return places as Arrow has them."""
    import pyarrow

    return pyarrow.array(places)


def _stream(table: Any) -> bytes:
    import pyarrow
    from pyarrow import ipc

    sink = pyarrow.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def partition_turns(part: Part, job: Job) -> Iterator[Columns]:
    """Yield the whole turns of a partition, by their hashes, some thousand rows at a time.

    So the order of all turns does not depend on how many partitions there are.
    """
    names = orjson.loads((job.state / PARTS_LIST).read())
    found = [block for name in names for block in _blocks(job.state / PARTS / name, part.number, with_raw=job.with_raw)]
    if not found:
        return
    rows = joined(found)
    rows = gathered(rows.take(np.argsort(rows.turn_hashes(), kind="stable")))
    borders = np.flatnonzero(rows.borders()) + 1
    start = 0
    while start < len(rows):
        later = borders[np.searchsorted(borders, start + _ROWS_A_BLOCK) :]
        stop = int(later[0]) if len(later) else len(rows)
        yield rows.take(slice(start, stop))
        start = stop


def _blocks(file: Place, number: int, *, with_raw: bool) -> Iterator[Columns]:
    with file.open() as stored:
        stored.seek(8 * number)
        start, stop = np.frombuffer(stored.read(16), dtype="<i8").tolist()
        stored.seek(start)
        content = stored.read(stop - start)
    if content and file.name.endswith(_LINES):
        plain = None if b'"' + LINE.encode() in content else plain_columns(content, with_raw=with_raw)
        yield _columns_of_lines(content) if plain is None else plain
    elif content:
        from pyarrow import ipc

        from nat_dpo_pipeline.records.row_groups import batch_columns

        for batch in ipc.open_stream(content):
            yield batch_columns(batch, ReadCounts())[0]


def _columns_of_lines(content: bytes) -> Columns:
    rows = Rows()
    for text in content.split(b"\n"):
        row = parse_json(text)
        rows.add_flat(row, row.pop(LINE, FLAT))
    return rows.columns()
