"""Rows to partitions by a hash of their turn, so that the candidates of a turn meet; and partitions back to rows.

A file of parts starts with the offsets of its partitions and of their end, 8 bytes each; then come the partitions, each
JSON lines or an Arrow IPC stream.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow
from pyarrow import ipc

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.pairing.tasks import Done, Job, Part, PartitionTask
from nat_dpo_pipeline.records.columns import Columns, gathered, joined
from nat_dpo_pipeline.records.hashing import hashes, turn_text
from nat_dpo_pipeline.records.lines import parsed_row, read_lines, tell_row
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.plain_lines import plain_columns
from nat_dpo_pipeline.records.ranges import InputKind, Troubles
from nat_dpo_pipeline.records.row_groups import batch_columns, group_batches, turns_of_batch
from nat_dpo_pipeline.records.rows import Rows, is_turn_row, turn_of

PARTS = "parts"
#: The names of the files of parts, in the order of the input.
PARTS_LIST = "parts.json"
_LINES, _ARROW = ".lines", ".arrow"
_BYTES_A_FILE = 64 << 20
_BYTES_A_BATCH = 8 << 20
_ROWS_A_BLOCK = 4096


def partition(task: PartitionTask) -> Done:
    """Write the rows of a range to files of parts."""
    troubles, refused = Troubles(), Counter[str]()
    write = _partition_groups if task.source.kind is InputKind.PARQUET else _partition_lines
    names = list(write(task, troubles, refused))
    return Done(
        task.number,
        parts=names,
        refused=refused,
        bad_rows=troubles.rows,
        bad_files=troubles.files,
        bad=tuple(troubles.told),
    )


def _partition_lines(task: PartitionTask, troubles: Troubles, refused: Counter[str]) -> Iterator[str]:
    keys: list[str] = []
    texts: list[bytes] = []
    size = written = 0
    for offset, text in read_lines(task.source, troubles):
        row = parsed_row(text)
        if isinstance(row, str):
            tell_row(troubles, task.source, offset, row)
        elif (key := _key_of(row, text)) is None:
            refused[str(RefusalReason.MISSING_TURN_ID)] += 1
        else:
            keys.append(key)
            texts.append(text)
            size += len(text)
        if size >= _BYTES_A_FILE:
            yield _write(task, written, _LINES, _parts_of_lines(keys, texts, task.partitions))
            keys, texts, size, written = [], [], 0, written + 1
    if texts:
        yield _write(task, written, _LINES, _parts_of_lines(keys, texts, task.partitions))


def _key_of(row: Mapping[str, object], text: bytes) -> str | None:
    """What decides on the partition of a row; None for one that names no turn. A turn row is whole anyway."""
    if is_turn_row(row):
        return text.decode(errors="replace")
    turn = turn_of(row)
    return None if turn is None else turn_text(*turn)


def _parts_of_lines(keys: Sequence[str], texts: Sequence[bytes], partitions: int) -> list[bytes]:
    parts: list[list[bytes]] = [[] for _ in range(partitions)]
    for place, text in zip((hashes(keys) % np.uint64(partitions)).tolist(), texts, strict=True):
        parts[place].append(text)
    return [b"\n".join(part) for part in parts]


def _partition_groups(task: PartitionTask, troubles: Troubles, refused: Counter[str]) -> Iterator[str]:
    batches: list[Any] = []
    size = written = 0
    for batch in group_batches(task.source, troubles, _BYTES_A_BATCH, with_raw=task.job.with_raw):
        batches.append(batch)
        size += batch.nbytes
        if size >= _BYTES_A_FILE:
            yield _write(task, written, _ARROW, _parts_of_batches(batches, task.partitions, refused))
            batches, size, written = [], 0, written + 1
    if batches:
        yield _write(task, written, _ARROW, _parts_of_batches(batches, task.partitions, refused))


def _parts_of_batches(batches: Sequence[Any], partitions: int, refused: Counter[str]) -> list[bytes]:
    table = pyarrow.Table.from_batches(batches)
    turns = [turn for batch in batches for turn in turns_of_batch(batch)]
    named = [row for row, turn in enumerate(turns) if turn is not None]
    if len(named) < len(turns):
        refused[str(RefusalReason.MISSING_TURN_ID)] += len(turns) - len(named)
    places = hashes(turn_text(*turn) for turn in turns if turn is not None) % np.uint64(partitions)
    order = np.argsort(places, kind="stable")
    taken = table.take(pyarrow.array(np.array(named, dtype=np.int64)[order]))
    cuts = np.searchsorted(places[order], np.arange(partitions + 1, dtype=np.uint64)).tolist()
    return [_stream(taken.slice(start, stop - start)) if stop > start else b"" for start, stop in pairwise(cuts)]


def _stream(table: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _write(task: PartitionTask, written: int, suffix: str, parts: Sequence[bytes]) -> str:
    name = f"{task.number:05}-{written:04}{suffix}"
    offsets = np.cumsum([8 * (task.partitions + 1), *map(len, parts)]).astype("<i8")
    with (task.job.state / PARTS / name).replaced() as sink:
        sink.write(offsets.tobytes())
        for part in parts:
            sink.write(part)
    return name


def partition_turns(part: Part, job: Job) -> Iterator[Columns]:
    """The whole turns of a partition, in the order their first candidates arrived, some thousand rows at a time."""
    names = orjson.loads((job.state / PARTS_LIST).read())
    blocks = [
        block for name in names for block in _blocks(job.state / PARTS / name, part.number, with_raw=job.with_raw)
    ]
    if not blocks:
        return
    rows = gathered(joined(blocks))
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
        plain = plain_columns(content, with_raw=with_raw)
        yield _columns_of_lines(content, file.name) if plain is None else plain
    elif content:
        for batch in ipc.open_stream(content):
            yield batch_columns(batch)


def _columns_of_lines(content: bytes, name: str) -> Columns:
    rows = Rows()
    # A number that no other line of the partition has.
    first = int(name.split("-")[0]) << 40 | int(name.split("-")[1].removesuffix(_LINES)) << 27
    for place, text in enumerate(content.split(b"\n")):
        row = parsed_row(text)
        if not isinstance(row, str):
            rows.add(row, text, first + place)
    return rows.columns()
