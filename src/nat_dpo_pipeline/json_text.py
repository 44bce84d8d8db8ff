"""JSON that others wrote. Every way in which it cannot be read is one error."""

import json
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
    if _is_too_deep(value):
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
