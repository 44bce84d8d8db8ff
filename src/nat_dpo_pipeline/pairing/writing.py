"""The files of a shard: one a format and side of the split, each there once all its rows are."""

from collections import Counter
from contextlib import ExitStack
from io import BytesIO
from typing import Any

import numpy as np

from nat_dpo_pipeline.core.messages import prompt_key
from nat_dpo_pipeline.core.split import rank
from nat_dpo_pipeline.dataset.files import Sink, WrittenFile
from nat_dpo_pipeline.dataset.formats import Format, SplitName, formats_named
from nat_dpo_pipeline.pairing.encoding import Block, encoded_lines
from nat_dpo_pipeline.pairing.options import FileKind
from nat_dpo_pipeline.pairing.tasks import Job
from nat_dpo_pipeline.records.columns import Bools
from nat_dpo_pipeline.records.hashing import Hashes
from nat_dpo_pipeline.records.places import Place

HELD_OUT = "held_out.npy"


class ShardFiles:
    """Takes the pairs of a shard. The files appear when the block succeeds; a side without rows gets none."""

    def __init__(self, job: Job, shard: int) -> None:
        formats = formats_named(job.formats)
        self.pairs: Counter[SplitName] = Counter()
        self.refused: dict[str, Counter[str]] = {one.name: Counter() for one in formats}
        self._job = job
        self._formats = formats
        self._shard = shard
        self._files: dict[tuple[str, SplitName], _File] = {}
        self.has_calls = False
        self._stack = ExitStack()
        self._held_out = _held_out(job.state) if job.is_split_late and (job.state / HELD_OUT).exists() else None

    def __enter__(self) -> "ShardFiles":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, block: Block) -> None:
        """Write the pairs and singles, each to its side."""
        if not self._job.validation_fraction:
            self._add(block, SplitName.TRAIN)
            return
        sides = self._sides(block)
        for side, is_here in ((SplitName.TRAIN, ~sides), (SplitName.VALIDATION, sides)):
            on_side = block.on_side(is_here)
            if len(on_side):
                self._add(on_side, side)

    def _sides(self, block: Block) -> Bools:
        """Whether each turn is held out."""
        turns, prompts = block.prompts()
        ranks = np.fromiter((rank(prompt_key(one), self._job.seed) for one in prompts), np.uint64, len(turns))
        sides = np.zeros(len(block.turns), dtype=bool)
        if self._held_out is not None:
            sides[turns] = np.isin(ranks, self._held_out)
        else:
            sides[turns] = ranks.astype(np.float64) / 2**64 < self._job.validation_fraction
        return sides

    def _add(self, block: Block, side: SplitName) -> None:
        self.pairs[side] += len(block.pairs)
        self.has_calls |= not block.is_text
        for one in self._formats:
            refused = self.refused[one.name]
            if self._job.kind is FileKind.JSONL:
                for lines, rows in encoded_lines(one, block, refused):
                    if rows:
                        self._file(one, side).add_lines(lines, rows)
            elif one.columns is not None:
                from nat_dpo_pipeline.pairing.arrow_tables import encoded_tables

                for table in encoded_tables(one, block, refused):
                    if table.num_rows:
                        self._file(one, side).add_table(table)

    def _file(self, one: Format, side: SplitName) -> "_File":
        if (one.name, side) not in self._files:
            kind = self._job.kind
            name = one.files[side] if self._job.is_whole else f"{side}-{self._shard:05}.{kind}"
            place = self._job.folders[one.name] / name
            place.folder.create_folder()
            sink = self._stack.enter_context(place.replaced())
            writer = None
            if kind is FileKind.PARQUET:
                writer = self._stack.enter_context(_parquet_writer(sink, one))
            self._files[one.name, side] = _File(f"{one.name}/{name}", sink, writer)
        return self._files[one.name, side]

    def written(self) -> list[WrittenFile]:
        """The files, once they are there."""
        return [file.sink.written(file.path, file.rows) for file in self._files.values()]


def _held_out(state: Place) -> Hashes:
    return np.load(BytesIO((state / HELD_OUT).read()))  # type: ignore[no-any-return]


class _File:
    def __init__(self, path: str, sink: Sink, writer: Any) -> None:
        self.path = path
        self.sink = sink
        self.rows = 0
        self._writer = writer

    def add_lines(self, lines: bytes, rows: int) -> None:
        self.rows += rows
        self.sink.write(lines)

    def add_table(self, table: Any) -> None:
        self.rows += table.num_rows
        self._writer.write_table(table)


def _parquet_writer(sink: Sink, one: Format) -> Any:
    from pyarrow import parquet

    from nat_dpo_pipeline.pairing.arrow_tables import schema_of

    # Without Arrow's schema in it readers see texts, not dictionaries. The texts of a block are one dictionary page.
    return parquet.ParquetWriter(
        sink, schema_of(one), compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 28
    )
