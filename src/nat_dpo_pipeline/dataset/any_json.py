"""Whatever a workflow hands around, as JSON: for rows that must be written, whatever is in them."""

import json
from collections.abc import Mapping
from enum import Enum
from math import isfinite

import orjson

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def json_line(row: object) -> bytes:
    """The row as one line. Never fails, and takes nothing out of an iterator.

    NaN and infinity become null, models objects, and what JSON does not know its text. A lone surrogate, which UTF-8
    does not have, is written as its escape.
    """
    try:
        return orjson.dumps(row, default=_opened, option=_OPTIONS | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(_plain(row, ())).encode() + b"\n"


def plain(value: object) -> object:
    """What `json_line` would write of `value`, as None, bool, int, float, str, list and dict. Never fails."""
    try:
        return orjson.loads(orjson.dumps(value, default=_opened, option=_OPTIONS))
    except TypeError:
        return _plain(value, ())


def _opened(value: object) -> object:
    """An object that orjson does not know, by what is in it."""
    for name in ("model_dump", "tolist"):  # pydantic, numpy
        method = getattr(value, name, None)
        if callable(method):
            return method()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value)


def _plain(value: object, around: tuple[int, ...]) -> object:
    """As orjson does it, but for what it refuses; `around` are the ids of what `value` is in."""
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Enum):
        return _plain(value.value, around)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _text(value)
    if id(value) in around or len(around) > _DEPTH:
        return _text(value)
    return _plain_object(value, (*around, id(value)))


_DEPTH = 100


def _plain_object(value: object, around: tuple[int, ...]) -> object:
    try:
        if isinstance(value, Mapping):
            return {_text(key): _plain(one, around) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [_plain(one, around) for one in value]
        return _plain(_opened(value), around)
    except Exception:  # noqa: BLE001 - whatever the methods of a foreign object raise
        return _text(value)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - likewise
        return f"<{type(value).__name__}>"
