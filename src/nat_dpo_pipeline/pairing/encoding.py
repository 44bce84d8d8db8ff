"""Pairs as rows of a format. Formats of one row a pair with nothing but texts in it are made a block at a time: each
text is encoded once, and rows are joined from the pieces."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow

from nat_dpo_pipeline.core.candidates import Prompt
from nat_dpo_pipeline.core.pairs import PreferencePair
from nat_dpo_pipeline.dataset.formats import Format, row_of
from nat_dpo_pipeline.dataset.formats.format import (
    EncodedOnce,
    Row,
    RowRefusal,
    TurnRows,
    as_answer,
    as_messages,
    as_text,
    only_text,
    plain,
)
from nat_dpo_pipeline.dataset.parquet import arrow_schema
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


_LAYOUTS: Mapping[str, Layout] = {
    "trl": Layout("prompt", "chosen", "rejected", as_messages, as_answer, with_scores_and_ids=True),
    "trl_standard": Layout("prompt", "chosen", "rejected", only_text, as_text),
    "nemo_customizer": Layout("prompt", "chosen_response", "rejected_response", as_messages, as_text),
    "helix": Layout("prompt", "chosen", "rejected", as_messages, as_text),
}


def needs_all_facts(one: Format) -> bool:
    """Whether rows of the format tell more of a candidate than its text and score."""
    return one.name not in _LAYOUTS


@dataclass(frozen=True, slots=True)
class Block:
    """The pairs of some turns, those of a turn one after the other."""

    turns: Turns
    pairs: Pairs

    def portions(self) -> Iterator["Block"]:
        for start in range(0, len(self.pairs), _PAIRS_AT_ONCE):
            yield Block(self.turns, self.pairs.take(slice(start, start + _PAIRS_AT_ONCE)))

    @property
    def first_rows(self) -> Ints:
        """A row of each turn."""
        return self.turns.starts[:-1]

    def prompts(self) -> tuple[Ints, Objects]:
        """The turns that have pairs, and their prompts."""
        turns = np.unique(self.pairs.turn)
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
    return Block(block.turns, block.pairs.take(is_carried))


def encoded_lines(one: Format, block: Block, refused: Counter[str]) -> Iterator[tuple[bytes, int]]:
    """The rows as lines of JSON, many at a time with their number; what the format cannot carry is counted."""
    layout = _LAYOUTS.get(one.name)
    if layout is not None:
        yield from _joined_lines(layout, carried(one, block, refused))
        return
    once = EncodedOnce()
    for turn in _turn_rows(block):
        rows = _rows_of(one, turn, once, refused)
        yield b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows), len(rows)
        once.clear()


def _rows_of(one: Format, turn: TurnRows, once: Any, refused: Counter[str]) -> list[Row]:
    made = list(one.rows(turn, once))
    refused.update(row for row in made if isinstance(row, RowRefusal))
    return [row for row in made if not isinstance(row, RowRefusal)]


def _turn_rows(block: Block) -> Iterator[TurnRows]:
    columns, pairs = block.turns.columns, block.pairs
    sizes = np.diff(block.turns.starts)
    cuts = np.concatenate(([0], np.flatnonzero(np.diff(pairs.turn)) + 1, [len(pairs)]))
    for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        rows = np.unique(np.concatenate((pairs.chosen[start:stop], pairs.rejected[start:stop]))).tolist()
        known = {row: columns.candidate(row) for row in rows}
        size = int(sizes[pairs.turn[start]]) if stop > start else 0
        both = zip(pairs.chosen[start:stop].tolist(), pairs.rejected[start:stop].tolist(), strict=True)
        if stop > start:
            yield TurnRows.of([row_of(PreferencePair(known[one], known[other], size)) for one, other in both])


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
        rows = _used(block)
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


def _used(block: Block) -> Ints:
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


def schema_of(one: Format) -> Any:
    """The format's columns as they are written: repeated texts as numbers of a dictionary."""
    schema = arrow_schema(one.columns or {})
    return (
        pyarrow.schema([field.with_type(_with_dictionaries(field.type)) for field in schema])
        if (one.name in _LAYOUTS)
        else schema
    )


def _with_dictionaries(kind: Any) -> Any:
    if pyarrow.types.is_string(kind):
        return pyarrow.dictionary(pyarrow.int32(), kind)
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(_with_dictionaries(kind.value_type))
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([field.with_type(_with_dictionaries(field.type)) for field in kind])
    return kind


def encoded_tables(one: Format, block: Block, refused: Counter[str]) -> Iterator[Any]:
    """The rows as Arrow tables; what the format cannot carry is counted."""
    layout = _LAYOUTS.get(one.name)
    if layout is None:
        rows = [row for turn in _turn_rows(block) for row in _rows_of(one, turn, plain, refused)]
        yield pyarrow.Table.from_pylist(rows, schema=schema_of(one))
    else:
        left = carried(one, block, refused)
        schema = schema_of(one)
        if len(left.pairs):
            yield pyarrow.table(_arrays(layout, left, schema), schema=schema)


def _arrays(layout: Layout, block: Block, schema: Any) -> list[Any]:
    columns, pairs = block.turns.columns, block.pairs
    turns, prompts = block.prompts()
    rows = _used(block)
    texts = pyarrow.array(columns.response[rows], pyarrow.string())
    arrays = [
        _prompts(layout, prompts, np.searchsorted(turns, pairs.turn)),
        *(_answers(layout, texts, np.searchsorted(rows, side)) for side in (pairs.chosen, pairs.rejected)),
    ]
    if layout.with_scores_and_ids:
        arrays += [pyarrow.array(columns.score[side]) for side in (pairs.chosen, pairs.rejected)]
        first = block.first_rows[turns]
        for names in (columns.example_id, columns.turn_id):
            arrays.append(
                _dictionary(pyarrow.array(names[first], pyarrow.string()), np.searchsorted(turns, pairs.turn))
            )
    return [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)]


def _dictionary(texts: Any, places: Ints) -> Any:
    """The texts at the places, each text once: Parquet writes a dictionary that repeats itself out in full."""
    encoded = texts.dictionary_encode()
    used, indices = np.unique(encoded.indices.to_numpy()[places], return_inverse=True)
    return pyarrow.DictionaryArray.from_arrays(
        pyarrow.array(indices.astype(np.int32)), encoded.dictionary.take(pyarrow.array(used))
    )


def _answers(layout: Layout, texts: Any, places: Ints) -> Any:
    contents = _dictionary(texts, places)
    return contents if layout.answer_as is as_text else _messages("assistant", contents)


def _prompts(layout: Layout, prompts: Objects, places: Ints) -> Any:
    texts = [only_text(prompt) for prompt in prompts]
    if layout.prompt_as is only_text:
        return _dictionary(pyarrow.array(texts, pyarrow.string()), places)
    if None not in texts:
        return _messages("user", _dictionary(pyarrow.array(texts, pyarrow.string()), places))
    # Several messages: the few of a conversation have no dictionary of their own.
    messages = [message for prompt in prompts for message in as_messages(prompt)]
    starts = np.cumsum([0, *(len(as_messages(prompt)) for prompt in prompts)])
    lengths = np.diff(starts)[places]
    flat = np.repeat(starts[places] - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths) + np.arange(
        lengths.sum()
    )
    parts = [
        _dictionary(pyarrow.array([message[name] for message in messages], pyarrow.string()), flat)
        for name in ("role", "content")
    ]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.StructArray.from_arrays(parts, _MESSAGE_NAMES))


_MESSAGE_NAMES = ["role", "content"]


def _messages(role: str, contents: Any) -> Any:
    """Lists of one message each."""
    roles = _dictionary(pyarrow.array([role]), np.zeros(len(contents), dtype=np.int64))
    message = pyarrow.StructArray.from_arrays([roles, contents], _MESSAGE_NAMES)
    return pyarrow.ListArray.from_arrays(pyarrow.array(np.arange(len(contents) + 1, dtype=np.int32)), message)


def is_held_out_mask(block: Block, held_out: Callable[[Prompt], bool]) -> Bools:
    """Which pairs are of prompts that are held out."""
    turns, prompts = block.prompts()
    sides = np.zeros(len(block.turns), dtype=bool)
    sides[turns] = [held_out(prompt) for prompt in prompts]
    return sides[block.pairs.turn]
