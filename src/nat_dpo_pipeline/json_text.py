"""JSON: whatever others wrote is a value or one error, and whatever a value holds becomes JSON."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time
from enum import Enum
from math import isfinite
from typing import Any

import orjson

from nat_dpo_pipeline.errors import InputError

#: Levels of arrays and objects. What has no more can be walked and written again: orjson writes 254 levels, and Python
#: makes 1,000 calls within one another, several a level in what walks a value.
MOST_NESTED = 200


def parse_json(text: bytes | str, *, strict: bool = False) -> Any:
    """Return the value, which may hold NaN and escaped halves of surrogate pairs unless `strict`.

    Raises InputError for what is no JSON, is nested deeper than MOST_NESTED levels, or holds a number of more digits
    than Python reads (4,300).
    """
    value = _parsed(text, strict=strict)
    if _may_be_deep(text) and _is_too_deep(value):
        raise InputError(_TOO_DEEP)
    return value


def parse_document(text: bytes | str, *, strict: bool = False) -> Any:
    """As `parse_json`, but of an array the elements that are nested too deep are None, so that the others are read."""
    value = _parsed(text, strict=strict)
    if isinstance(value, list):
        return [None if _is_too_deep(element) else element for element in value]
    if _is_too_deep(value):
        raise InputError(_TOO_DEEP)
    return value


_TOO_DEEP = f"not read as JSON: nested deeper than {MOST_NESTED} levels"


def _parsed(text: bytes | str, *, strict: bool) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if strict:
            raise InputError(f"not JSON: {error}") from error
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not JSON: {error}") from error
    except ValueError as error:
        raise InputError("not read as JSON: a number has more than 4,300 digits") from error
    except RecursionError as error:
        raise InputError(_TOO_DEEP) from error


def _may_be_deep(text: bytes | str) -> bool:
    # Counting brackets is much quicker than to walk what is within them.
    brackets = (b"[", b"{") if isinstance(text, bytes) else ("[", "{")
    return sum(map(text.count, brackets)) > MOST_NESTED  # type: ignore[arg-type]


def _is_too_deep(value: object) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_NESTED):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
    return bool(level)


_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def json_bytes(value: object, *, indented: bool = False) -> bytes:
    """Return `value` as JSON. Never fails, and takes nothing out of an iterator.

    NaN and infinity become null, objects what is in them. What JSON does not know becomes its text, and so does a whole
    number of more than 64 bits. A lone surrogate, which UTF-8 does not have, is written as its escape.
    """
    try:
        return orjson.dumps(value, default=_opened, option=_OPTIONS | (orjson.OPT_INDENT_2 if indented else 0))
    except TypeError:
        return json.dumps(_plain(value, ()), indent=2 if indented else None).encode()


def json_line(value: object) -> bytes:
    """Return `value` as one line of JSON, by the rules of `json_bytes`."""
    return json_bytes(value) + b"\n"


def plain(value: object) -> Any:
    """Return what `json_bytes` writes of `value`, as None, bool, int, float, str, list and dict. Never fails."""
    return _loads(json_bytes(value))


def _loads(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # of a lone surrogate
        return json.loads(text)


def _opened(value: object) -> object:
    """Return what is in an object that orjson does not know."""
    if isinstance(value, date | time):
        return value.isoformat()
    for name in ("model_dump", "tolist"):  # pydantic; numpy and torch
        method = getattr(value, name, None)
        if callable(method):
            return method()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)  # the same in every process
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return str(value)


def _plain(value: object, around: tuple[int, ...]) -> Any:
    """Return what orjson writes, and a text for what it refuses; `around` holds the ids of what `value` is in."""
    if isinstance(value, Enum):
        return _plain(value.value, around)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**64 else _text(value)
    if id(value) in around or len(around) >= MOST_NESTED:
        return _text(value)
    try:
        return _plain_object(value, (*around, id(value)))
    except Exception:  # noqa: BLE001 - whatever the methods of a foreign object raise
        return _text(value)


def _plain_object(value: object, around: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): _plain(one, around) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, around) for one in value]
    return _plain(_opened(value), around)


def _key(key: object) -> Any:
    found = _plain(key, ())
    return _text(key) if isinstance(found, list | dict) else found


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - likewise
        return f"<{type(value).__name__}>"
