"""Pairs as Arrow tables, each text of a block once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow

from nat_dpo_pipeline.core.messages import as_messages
from nat_dpo_pipeline.dataset.formats import Format
from nat_dpo_pipeline.dataset.formats.format import as_text, only_text, plain
from nat_dpo_pipeline.dataset.parquet import arrow_schema
from nat_dpo_pipeline.pairing.encoding import LAYOUTS, Block, Layout, carried, rows_of_turns, used_rows
from nat_dpo_pipeline.records.columns import Ints, Objects


def schema_of(one: Format) -> Any:
    """The format's columns as they are written: repeated texts as numbers of a dictionary."""
    schema = arrow_schema(one.columns or {})
    return (
        pyarrow.schema([field.with_type(_with_dictionaries(field.type)) for field in schema])
        if (one.name in LAYOUTS)
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
    layout = LAYOUTS.get(one.name) if one.template is None and block.is_text else None
    if layout is None:
        texts = one if one.template else replace(one, takes_calls=False)
        rows = [row for found in rows_of_turns(texts, block, plain, refused) for row in found]
        yield pyarrow.Table.from_pylist(rows, schema=schema_of(one))
    else:
        left = carried(one, block, refused)
        schema = schema_of(one)
        if len(left.pairs):
            yield pyarrow.table(_arrays(layout, left, schema), schema=schema)


def _arrays(layout: Layout, block: Block, schema: Any) -> list[Any]:
    columns, pairs = block.turns.columns, block.pairs
    turns, prompts = block.prompts()
    rows = used_rows(block)
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
