"""Candidates as columns, and the turns among them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nat_dpo_pipeline.core.candidates import Candidate, Turn
from nat_dpo_pipeline.records.hashing import Hashes, hashes, turn_text

#: What the rows of one turn have in common: line, run, example and turn.
Key = tuple[int, str, str, str]
Objects = NDArray[np.object_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: `Columns.line` of rows that are no turn by themselves.
FLAT = -1
# Of an index: a whole number that JSON's readers hold exactly, also as a float.
_MOST_INDEX = 2**53
# What of a flat row is no metadata.
_KNOWN = frozenset(("run_id", "example_id", "turn_id", "candidate_index", "prompt", "response", "score", "tools"))


def objects(values: Iterable[object], count: int) -> Objects:
    """An array of Python objects, tuples among them."""
    return np.fromiter(values, dtype=object, count=count)


@dataclass(frozen=True, slots=True)
class Columns:
    """Candidates in the order they arrived; `raw` is the rest of each, where anybody asks for it.

    `line` tells turn rows apart, each of which is a turn by itself; it is FLAT in flat rows.
    """

    line: Ints
    run_id: Objects
    example_id: Objects
    turn_id: Objects
    prompt: Objects
    response: Objects
    score: Floats
    is_flawed: Bools
    raw: Objects

    def __len__(self) -> int:
        return len(self.line)

    def take(self, rows: Any) -> "Columns":
        """The rows of a slice, a mask or an array of places."""
        return Columns(*(getattr(self, one.name)[rows] for one in fields(self)))

    def key(self, row: int) -> Key:
        """What the rows of one turn have in common."""
        return int(self.line[row]), self.run_id[row], self.example_id[row], self.turn_id[row]

    def _equals(self, key: Key) -> Bools:
        line, run_id, example_id, turn_id = key
        is_same = (self.line == line) & (self.turn_id == turn_id) & (self.example_id == example_id)
        return np.asarray(is_same & (self.run_id == run_id), dtype=bool)

    def leading(self, key: Key) -> int:
        """How many of the first rows are of this turn."""
        others = np.flatnonzero(~self._equals(key))
        return int(others[0]) if len(others) else len(self)

    def turn_hashes(self) -> Hashes:
        """Return a number for the turn of each row, by its run, example and turn."""
        return hashes(map(turn_text, self.run_id, self.example_id, self.turn_id))

    def borders(self) -> Bools:
        """Whether each row but the first is of another turn than the row before."""
        differs = self.line[1:] != self.line[:-1]
        for column in (self.turn_id, self.example_id, self.run_id):
            differs = differs | (column[1:] != column[:-1])
        return np.asarray(differs, dtype=bool)

    def candidate(self, row: int, place: int = 0) -> Candidate:
        """Return the row as the core has it, at a `place` in its turn. `raw` must have been read."""
        raw: Mapping[str, object] = self.raw[row] or {}
        metadata, index = raw.get("metadata"), raw.get("candidate_index")
        others = {name: value for name, value in raw.items() if name not in _KNOWN}
        if isinstance(metadata, Mapping):
            others = {name: value for name, value in others.items() if name != "metadata"} | {**metadata}
        elif metadata is None:
            others.pop("metadata", None)
        return Candidate(
            example_id=self.example_id[row],
            turn_id=self.turn_id[row],
            candidate_index=index if type(index) is int and abs(index) <= _MOST_INDEX else place,
            prompt=self.prompt[row],
            response=self.response[row],
            score=float(self.score[row]),
            metadata=others,
        )


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, of which there is at least one."""
    if len(parts) == 1:
        return parts[0]
    return Columns(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Columns)))


@dataclass(frozen=True, slots=True)
class Turns:
    """Candidates with those of a turn, and of a prompt in it, next to each other; `starts` is where each begins.

    The last of `starts` is the number of rows. `split` turns became several, as their prompts differ.
    """

    columns: Columns
    starts: Ints
    split: int = 0

    def __len__(self) -> int:
        return len(self.starts) - 1

    def each(self) -> Iterator[Turn]:
        """Yield the turns as the core has them. `raw` must have been read."""
        columns = self.columns
        for start, stop in pairwise(self.starts.tolist()):
            candidates = [columns.candidate(row, row - start) for row in range(start, stop)]
            yield Turn(columns.example_id[start], columns.turn_id[start], columns.prompt[start], candidates)

    def turn_of_rows(self) -> Ints:
        return np.repeat(np.arange(len(self)), np.diff(self.starts))


def contiguous_turns(columns: Columns) -> Turns:
    """Turns whose rows follow one another; one whose prompts differ becomes one turn per prompt."""
    if not len(columns):
        return Turns(columns, np.zeros(1, dtype=np.int64))
    is_border = columns.borders()
    differs = np.asarray(columns.prompt[1:] != columns.prompt[:-1], dtype=bool)
    if (differs & ~is_border).any():
        order = _with_prompts_together(columns, np.concatenate(([0], np.flatnonzero(is_border) + 1, [len(columns)])))
        columns = columns.take(order)
        is_border = columns.borders()
        differs = np.asarray(columns.prompt[1:] != columns.prompt[:-1], dtype=bool)
    starts = np.concatenate(([0], np.flatnonzero(is_border | differs) + 1, [len(columns)]))
    of_rows = np.concatenate(([0], np.cumsum(is_border)))
    split = len(np.unique(of_rows[1:][differs & ~is_border]))
    return Turns(columns, starts.astype(np.int64), split)


def _with_prompts_together(columns: Columns, starts: Ints) -> Ints:
    return np.fromiter(
        (row for start, stop in pairwise(starts.tolist()) for row in _first_come(range(start, stop), columns.prompt)),
        dtype=np.int64,
        count=len(columns),
    )


def _first_come(rows: Iterable[int], keys: Sequence[object] | Objects) -> Iterator[int]:
    """The rows of each key together, keys and rows in the order they arrived."""
    groups: dict[object, list[int]] = {}
    for row in rows:
        groups.setdefault(keys[row], []).append(row)
    for group in groups.values():
        yield from group


def gathered(columns: Columns) -> Columns:
    """Return the rows of each turn together, turns in the order their first rows arrived."""
    keys = list(
        zip(columns.line.tolist(), columns.run_id, columns.example_id, columns.turn_id, strict=True),
    )
    order = np.fromiter(_first_come(range(len(columns)), keys), dtype=np.int64, count=len(columns))
    return columns.take(order)
