"""Pairs as rows of a format. Formats of one row a pair with nothing but texts in it are made a block at a time: each
text is encoded once, and rows are joined from the pieces."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import merge
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from nat_dpo_pipeline.core.messages import Prompt, as_messages, has_calls
from nat_dpo_pipeline.core.pairs import PreferencePair
from nat_dpo_pipeline.dataset.formats import Format, row_of
from nat_dpo_pipeline.dataset.formats.format import (
    EncodedOnce,
    Once,
    Row,
    RowRefusal,
    TurnRows,
    as_answer,
    as_text,
    only_text,
)
from nat_dpo_pipeline.dataset.formats.rows import single_row
from nat_dpo_pipeline.pairing.kernel import Pairs
from nat_dpo_pipeline.records.columns import Bools, Ints, Objects, Turns, objects

# Lines that are joined at once: about a megabyte, so that what is joined is still in a cache when it is written.
_PAIRS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Layout:
    """A format whose rows are a prompt and two answers: the names of the three, and how they are written."""

    prompt: str
    chosen: str
    rejected: str
    prompt_as: Callable[[Prompt], object]
    answer_as: Callable[[str], object]
    with_scores_and_ids: bool = False

    @property
    def around_answer(self) -> tuple[bytes, bytes]:
        """The JSON around the text of an answer."""
        before, after = orjson.dumps(self.answer_as("?")).split(b'"?"')
        return before, after


LAYOUTS: Mapping[str, Layout] = {
    "trl": Layout("prompt", "chosen", "rejected", as_messages, as_answer, with_scores_and_ids=True),
    "trl_standard": Layout("prompt", "chosen", "rejected", only_text, as_text),
    "nemo_customizer": Layout("prompt", "chosen_response", "rejected_response", as_messages, as_text),
    "helix": Layout("prompt", "chosen", "rejected", as_messages, as_text),
}


def needs_all_facts(one: Format) -> bool:
    """Whether rows of the format tell more of a candidate than its text and score."""
    return one.name not in LAYOUTS


_NO_ROWS: Ints = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Block:
    """The pairs of some turns, those of a turn one after the other; `singles` are rows that are alone in their turn.

    A single is good from the score `label_score` on.
    """

    turns: Turns
    pairs: Pairs
    singles: Ints = field(default_factory=lambda: _NO_ROWS)
    label_score: float = 0.0

    def __len__(self) -> int:
        return len(self.pairs) + len(self.singles)

    @property
    def turns_of_singles(self) -> Ints:
        return np.searchsorted(self.turns.starts, self.singles, side="right") - 1

    @property
    def is_text(self) -> bool:
        """True when nothing but text is asked and answered."""
        return set(map(type, self.turns.columns.response.tolist())) <= {str} and not any(
            map(has_calls, self.prompts()[1])
        )

    def on_side(self, is_here: Bools) -> "Block":
        """Return what is of the turns where `is_here`."""
        pairs = self.pairs.take(np.flatnonzero(is_here[self.pairs.turn]))
        return replace(self, pairs=pairs, singles=self.singles[is_here[self.turns_of_singles]])

    def portions(self) -> Iterator["Block"]:
        for start in range(0, len(self.pairs), _PAIRS_AT_ONCE):
            yield Block(self.turns, self.pairs.take(slice(start, start + _PAIRS_AT_ONCE)))

    @property
    def first_rows(self) -> Ints:
        """A row of each turn."""
        return self.turns.starts[:-1]

    def prompts(self) -> tuple[Ints, Objects]:
        """Return the turns that have pairs or a single, and their prompts."""
        turns = np.unique(self.pairs.turn)
        if len(self.singles):
            turns = np.union1d(turns, self.turns_of_singles)
        return turns, self.turns.columns.prompt[self.first_rows[turns]]


def carried(one: Format, block: Block, refused: Counter[str]) -> Block:
    """The pairs that the format can carry; the others are counted. For formats with a layout."""
    if one.name != "trl_standard":
        return block
    turns, prompts = block.prompts()
    is_text = np.ones(len(block.turns), dtype=bool)
    is_text[turns] = [only_text(prompt) is not None for prompt in prompts]
    is_carried = is_text[block.pairs.turn]
    if not is_carried.all():
        refused[RowRefusal.PROMPT_OF_SEVERAL_MESSAGES] += int((~is_carried).sum())
    return replace(block, pairs=block.pairs.take(is_carried))


def encoded_lines(one: Format, block: Block, refused: Counter[str]) -> Iterator[tuple[bytes, int]]:
    """The rows as lines of JSON, many at a time with their number; what the format cannot carry is counted."""
    layout = LAYOUTS.get(one.name) if one.template is None and block.is_text else None
    if layout is not None:
        yield from _joined_lines(layout, carried(one, block, refused))
        return
    once = EncodedOnce()
    for rows in rows_of_turns(one, block, once, refused):
        yield b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows), len(rows)
        once.clear()


def rows_of_turns(one: Format, block: Block, once: Once, refused: Counter[str]) -> Iterator[list[Row]]:
    """Yield the rows of each turn; what the format cannot carry is counted."""
    for turn in _turn_rows(block):
        made = list(one.rows_of(turn, once))
        refused.update(row for row in made if isinstance(row, RowRefusal))
        yield [row for row in made if not isinstance(row, RowRefusal)]


def _turn_rows(block: Block) -> Iterator[TurnRows]:
    """Yield the rows of each turn, in the order of the turns."""
    singles = (
        (turn, None, row) for turn, row in zip(block.turns_of_singles.tolist(), block.singles.tolist(), strict=True)
    )
    cuts = np.concatenate(([0], np.flatnonzero(np.diff(block.pairs.turn)) + 1, [len(block.pairs)])).tolist()
    paired = ((int(block.pairs.turn[start]), start, stop) for start, stop in pairwise(cuts) if stop > start)
    for turn, start, stop in merge(paired, singles, key=itemgetter(0)):
        if start is None:
            candidate = block.turns.columns.candidate(stop)
            yield TurnRows.of([single_row(candidate, label=candidate.score >= block.label_score)])
        else:
            yield _paired_rows(block, turn, start, stop)


def _paired_rows(block: Block, turn: int, start: int, stop: int) -> TurnRows:
    columns, pairs = block.turns.columns, block.pairs
    rows = np.unique(np.concatenate((pairs.chosen[start:stop], pairs.rejected[start:stop]))).tolist()
    known = {row: columns.candidate(row) for row in rows}
    size = int(block.turns.starts[turn + 1] - block.turns.starts[turn])
    both = zip(pairs.chosen[start:stop].tolist(), pairs.rejected[start:stop].tolist(), strict=True)
    return TurnRows.of([row_of(PreferencePair(known[one], known[other], size)) for one, other in both])


def _joined_lines(layout: Layout, block: Block) -> Iterator[tuple[bytes, int]]:
    pieces = _Pieces.of(layout, block)
    for portion in block.portions():
        yield b"".join(pieces.of_pairs(portion.pairs).ravel().tolist()), len(portion.pairs)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """What rows are joined from: of each turn start and end, of each candidate answer and score."""

    heads: Objects
    tails: Objects
    answers: Objects
    scores: Objects | None
    layout: Layout

    @classmethod
    def of(cls, layout: Layout, block: Block) -> "_Pieces":
        columns = block.turns.columns
        turns, prompts = block.prompts()
        before, after = layout.around_answer
        start, before_chosen = f'{{"{layout.prompt}":'.encode(), f',"{layout.chosen}":'.encode() + before
        encoded = (orjson.dumps(layout.prompt_as(prompt)) for prompt in prompts)
        heads = _scattered((start + prompt + before_chosen for prompt in encoded), turns, len(block.turns))
        rows = used_rows(block)
        answers = map(orjson.dumps, columns.response[rows].tolist())
        tails = (after + b"}\n" for _ in turns)
        if layout.with_scores_and_ids:
            first = block.first_rows[turns]
            tails = (_ids(*names) for names in zip(columns.example_id[first], columns.turn_id[first], strict=True))
        return cls(
            heads,
            _scattered(tails, turns, len(block.turns)),
            _scattered(answers, rows, len(columns)),
            _scattered(_numbers(columns.score[rows].tolist()), rows, len(columns))
            if layout.with_scores_and_ids
            else None,
            layout,
        )

    def of_pairs(self, pairs: Pairs) -> Objects:
        before, after = self.layout.around_answer
        columns: list[Any] = [
            self.heads[pairs.turn],
            self.answers[pairs.chosen],
            after + f',"{self.layout.rejected}":'.encode() + before,
            self.answers[pairs.rejected],
        ]
        if self.scores is not None:
            columns += [after + b',"chosen_score":', self.scores[pairs.chosen]]
            columns += [b',"rejected_score":', self.scores[pairs.rejected]]
        columns.append(self.tails[pairs.turn])
        pieces = np.empty((len(pairs), len(columns)), dtype=object)
        for place, column in enumerate(columns):
            pieces[:, place] = column
        return pieces


def _ids(example_id: str, turn_id: str) -> bytes:
    return b',"example_id":' + orjson.dumps(example_id) + b',"turn_id":' + orjson.dumps(turn_id) + b"}\n"


def _numbers(values: list[float]) -> list[bytes]:
    return orjson.dumps(values)[1:-1].split(b",") if values else []


def used_rows(block: Block) -> Ints:
    """The rows that are in pairs."""
    is_used = np.zeros(len(block.turns.columns), dtype=bool)
    is_used[block.pairs.chosen] = True
    is_used[block.pairs.rejected] = True
    return np.flatnonzero(is_used)


def _scattered(values: Any, places: Ints, count: int) -> Objects:
    """An array of so many places, with the values at those places."""
    array = np.empty(count, dtype=object)
    array[places] = objects(values, len(places))
    return array
