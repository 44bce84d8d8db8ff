"""Lines that all hold flat rows as they should be, read many at once: several times as fast as one by one."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

import numpy as np
from msgspec import MsgspecError, Struct, defstruct
from msgspec.json import Decoder

from nat_dpo_pipeline.core.marks import MARKS
from nat_dpo_pipeline.core.messages import Message, Prompt
from nat_dpo_pipeline.core.rendering import render_prompt, split_replies, without_reply
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.records.columns import FLAT, Columns, objects
from nat_dpo_pipeline.records.rows import says_flaw


class _Message(Struct, gc=False, forbid_unknown_fields=True):
    """No call of a tool, nor whatever else may be in a message."""

    role: str
    content: str


class _Row(Struct, gc=False, forbid_unknown_fields=True):
    example_id: str
    turn_id: str
    prompt: str | list[_Message]
    response: str
    score: float
    run_id: str | None = None
    flaw: object = None
    metadata: object = None


# Rows with other columns, of which those that may change what a row means must be looked at.
_LOOKED_AT = sorted({*MARKS, "tools"})
_WideRow = defstruct(
    "_WideRow", [(name, object, None) for name in _LOOKED_AT], bases=(_Row,), gc=False, forbid_unknown_fields=False
)
_ROWS: Decoder[_Row] = Decoder(_Row)
_WIDE_ROWS: Decoder[Any] = Decoder(_WideRow)
_looked_at = attrgetter(*_LOOKED_AT)
_OBJECTS: Decoder[dict[str, object]] = Decoder(dict[str, object])
_LINE_END, _OPENING, _CLOSING = b"\n{}"
_example_of = attrgetter("example_id")
_response_of = attrgetter("response")
_NAMES = ("example_id", "turn_id")


def plain_columns(lines: bytes, *, with_raw: bool) -> Columns | None:
    """The rows of the lines, of which the last has no end; None where they must be looked at one by one."""
    count = _count_of_objects(lines)
    if count is None:
        return None
    try:
        if not lines.isascii():
            # What no field asks for is not decoded below.
            lines.decode()
        rows = _rows(lines)
        if rows is None:
            return None
        raw: Sequence[Mapping[str, object]] = _OBJECTS.decode_lines(lines) if with_raw else ()
        prompts = _prompts(rows)
    except (MsgspecError, ValueError, RecursionError, CandidateRefused):
        return None
    if len(rows) != count or not all(map(_example_of, rows)):
        return None
    texts: dict[str, Any] = {name: objects(map(attrgetter(name), rows), count) for name in _NAMES}
    flaws = [
        (row.flaw is not None or row.metadata is not None) and says_flaw({"flaw": row.flaw, "metadata": row.metadata})
        for row in rows
    ]
    return Columns(
        line=np.full(count, FLAT, dtype=np.int64),
        run_id=objects((row.run_id or "" for row in rows), count),
        prompt=objects(prompts, count),
        response=objects(split_replies(map(_response_of, rows)), count),
        **texts,
        score=np.fromiter((row.score for row in rows), dtype=np.float64, count=count),
        is_flawed=np.array(flaws, dtype=bool),
        raw=objects(raw or repeat({}), count),
    )


def _rows(lines: bytes) -> list[_Row] | None:
    """Return the rows; None where one has tools, or a mark of how its reply or its reward came about."""
    try:
        return _ROWS.decode_lines(lines)
    except MsgspecError:
        rows: list[Any] = _WIDE_ROWS.decode_lines(lines)
        nothing = (None,) * len(_LOOKED_AT)
        return rows if all(found == nothing for found in map(_looked_at, rows)) else None


def _prompts(rows: Sequence[_Row]) -> Sequence[Prompt]:
    """Of candidates that follow one another equal ones are one object. Raises CandidateRefused, if one is blank too."""
    found: list[Prompt] = []
    last: object = None
    prompt: Prompt = ""
    for row in rows:
        asked = row.prompt if type(row.prompt) is str else without_reply(row.prompt, row.response)
        if asked != last:
            prompt, last = render_prompt(asked if type(asked) is str else _messages(asked)), asked
        found.append(prompt)
    return found


def _messages(asked: Any) -> list[Message]:
    return [Message(one.role, one.content) for one in asked]


def _count_of_objects(lines: bytes) -> int | None:
    """How many lines there are, if each begins and ends as an object does. Then no value goes from one line to the
    next: a line end between `}` and `{` is outside of texts, where only a comma could hold the two together."""
    content = np.frombuffer(lines, dtype=np.uint8)
    ends = np.flatnonzero(content == _LINE_END)
    are_objects = lines[:1] == b"{" and lines[-1:] == b"}"
    if not are_objects or (content[ends - 1] != _CLOSING).any() or (content[ends + 1] != _OPENING).any():
        return None
    return len(ends) + 1
