"""Candidates as columns, and the turns among them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nat_dpo_pipeline.core.candidates import Candidate, RefusalReason

#: What the rows of one turn have in common: line, run, example and turn.
Key = tuple[int, str, str, str]
Objects = NDArray[np.object_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: `Columns.refusal` of a candidate; other numbers are places in REFUSALS, plus one.
ACCEPTED = 0
REFUSALS = tuple(RefusalReason)
_NO_TURN = REFUSALS.index(RefusalReason.MISSING_TURN_ID) + 1
_KNOWN = frozenset(("run_id", "example_id", "turn_id", "candidate_index", "prompt", "response", "score"))
#: What of a flat row is no metadata.
CANDIDATE_KEYS = _KNOWN | {"attributes", "model", "metadata"}


def objects(values: Iterable[object], count: int) -> Objects:
    """An array of Python objects, tuples among them."""
    return np.fromiter(values, dtype=object, count=count)


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows that name their turn, in the order they arrived; `raw` is the rest of each, where anybody asks for it.

    `line` tells turn rows apart, each of which is a turn by itself; it is -1 in flat rows. Where `refusal` is not
    ACCEPTED, prompt, response and score mean nothing.
    """

    line: Ints
    run_id: Objects
    example_id: Objects
    turn_id: Objects
    prompt: Objects
    response: Objects
    score: Floats
    is_flawed: Bools
    refusal: NDArray[np.int8]
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

    def with_turn(self) -> "Columns":
        """The rows that name their turn."""
        is_named = self.refusal != _NO_TURN
        return self if is_named.all() else self.take(is_named)

    def borders(self) -> Bools:
        """Whether each row but the first is of another turn than the row before."""
        differs = self.line[1:] != self.line[:-1]
        for column in (self.turn_id, self.example_id, self.run_id):
            differs = differs | (column[1:] != column[:-1])
        return np.asarray(differs, dtype=bool)

    def candidate(self, row: int) -> Candidate:
        """The row as the core has it. `raw` must have been read."""
        raw: Mapping[str, object] = self.raw[row] or {}
        metadata, attributes, model = (raw.get(name) for name in ("metadata", "attributes", "model"))
        index = raw.get("candidate_index")
        others = {name: value for name, value in raw.items() if name not in CANDIDATE_KEYS}
        return Candidate(
            example_id=self.example_id[row],
            turn_id=self.turn_id[row],
            candidate_index=index if isinstance(index, int) else row,
            prompt=self.prompt[row],
            response=self.response[row],
            score=float(self.score[row]),
            attributes=attributes if isinstance(attributes, Mapping) else {},
            model=model if isinstance(model, str) else None,
            metadata={**others, **metadata} if isinstance(metadata, Mapping) else others,
        )


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of all parts, of which there is at least one."""
    if len(parts) == 1:
        return parts[0]
    return Columns(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Columns)))


def accepted(columns: Columns, refused: Counter[str]) -> Columns:
    """The candidates among the rows; the others are counted."""
    is_refused = columns.refusal != ACCEPTED
    if not is_refused.any():
        return columns
    for code, count in zip(*np.unique(columns.refusal[is_refused], return_counts=True), strict=True):
        refused[str(REFUSALS[code - 1])] += int(count)
    return columns.take(~is_refused)


@dataclass(frozen=True, slots=True)
class Turns:
    """Candidates with those of a turn, and of a prompt in it, next to each other; `starts` is where each begins.

    The last of `starts` is the number of rows.
    """

    columns: Columns
    starts: Ints

    def __len__(self) -> int:
        return len(self.starts) - 1

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
    return Turns(columns, starts.astype(np.int64))


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
    """The rows of each turn together, turns in the order their first rows arrived."""
    keys = list(
        zip(columns.line.tolist(), columns.run_id, columns.example_id, columns.turn_id, strict=True),
    )
    order = np.fromiter(_first_come(range(len(columns)), keys), dtype=np.int64, count=len(columns))
    return columns.take(order)
