"""The files of a shard: one a format and side of the split, each there once all its rows are."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from pyarrow import parquet

from nat_dpo_pipeline.core.candidates import Prompt, prompt_key
from nat_dpo_pipeline.core.split import is_held_out
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats import Format, SplitName
from nat_dpo_pipeline.pairing.encoding import Block, encoded_lines, encoded_tables, is_held_out_mask, schema_of
from nat_dpo_pipeline.pairing.options import FileKind
from nat_dpo_pipeline.records.places import Place, Sink


class ShardFiles:
    """Takes the pairs of a shard. The files appear when the block succeeds; a side without rows gets none."""

    def __init__(self, folder: Place, formats: Sequence[Format], kind: FileKind, shard: int) -> None:
        self.pairs: Counter[SplitName] = Counter()
        self.refused: dict[str, Counter[str]] = {one.name: Counter() for one in formats}
        self._folder = folder
        self._formats = formats
        self._kind = kind
        self._shard = shard
        self._files: dict[tuple[str, SplitName], _File] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "ShardFiles":
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, block: Block, fraction: float, seed: int) -> None:
        """Write the pairs, each to its side."""
        if not fraction:
            self._add(block, SplitName.TRAIN)
            return
        mask = is_held_out_mask(block, lambda prompt: _is_held_out(prompt, fraction, seed))
        for side, is_here in ((SplitName.TRAIN, ~mask), (SplitName.VALIDATION, mask)):
            if is_here.any():
                self._add(Block(block.turns, block.pairs.take(np.flatnonzero(is_here))), side)

    def _add(self, block: Block, side: SplitName) -> None:
        self.pairs[side] += len(block.pairs)
        for one in self._formats:
            if self._kind is FileKind.JSONL:
                for lines, rows in encoded_lines(one, block, self.refused[one.name]):
                    if rows:
                        self._file(one, side).add_lines(lines, rows)
            else:
                for table in encoded_tables(one, block, self.refused[one.name]):
                    if table.num_rows:
                        self._file(one, side).add_table(table)

    def _file(self, one: Format, side: SplitName) -> "_File":
        if (one.name, side) not in self._files:
            name = f"{side}-{self._shard:05}.{self._kind}"
            sink = self._stack.enter_context((self._folder / one.name / name).replaced())
            writer = None
            if self._kind is FileKind.PARQUET:
                writer = self._stack.enter_context(_parquet_writer(sink, one))
            self._files[one.name, side] = _File(f"{one.name}/{name}", sink, writer)
        return self._files[one.name, side]

    def written(self) -> list[WrittenFile]:
        """The files, once they are there."""
        return [file.sink.written(file.path, file.rows) for file in self._files.values()]


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
    # Without Arrow's schema in it readers see texts, not dictionaries. The texts of a block are one dictionary page.
    return parquet.ParquetWriter(
        sink, schema_of(one), compression="zstd", store_schema=False, dictionary_pagesize_limit=1 << 28
    )


def _is_held_out(prompt: Prompt, fraction: float, seed: int) -> bool:
    return is_held_out(prompt_key(prompt), fraction, seed)
