"""JSON objects as language models write them. Only what has one reading is read; nothing that is missing is made up.

Taken in besides JSON: Python's quotes, keys without quotes, a comma after the last entry, line breaks and single
backslashes (LaTeX) inside a text, and a second pair of braces around the object, as prompt templates escape them.
Parsers that repair JSON were not taken: json-repair completes what was cut, YAML reads `1:30` as 90, and JSON5 refuses
line breaks in a text.
"""

import json
import re
from typing import Any

_TOKEN = re.compile(
    r'"(?P<double>(?:\\.|[^"\\])*)"'
    r"|'(?P<single>(?:\\.|[^'\\])*)'"
    r"|“(?P<curly>[^“”]*)”"
    r"|(?P<comma>,)(?=\s*[}\]])"
    r"|(?P<key>[^\W\d]\w*)(?=\s*:)"
    r"|(?P<constant>True|False|None)\b",
    re.DOTALL,
)
_ESCAPE = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}


def read_object(text: str) -> dict[str, Any] | None:
    """Return the object that is the whole of `text`, with its keys stripped and casefolded; None for anything else.

    An object that gives one key two different values has no reading.
    """
    stripped = text.strip()
    if not (stripped.startswith("{") and stripped.endswith("}")):
        return None
    found = _loaded(stripped)
    return _loaded(stripped[1:-1]) if found is None else found


def _loaded(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(_TOKEN.sub(_as_json, text), strict=False, object_pairs_hook=_folded)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _as_json(token: re.Match[str]) -> str:
    kind, text = token.lastgroup or "", token[token.lastgroup or 0]
    if kind == "comma":
        return ""
    if kind == "constant":
        return _CONSTANTS[text]
    if kind != "double":
        text = text.replace("\\'", "'").replace('\\"', '"').replace('"', '\\"')
    return '"' + _ESCAPE.sub(lambda escape: escape[0] if escape[1] else "\\\\", text) + '"'


def _folded(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        key = name.strip().casefold()
        if key in found and found[key] != value:
            raise ValueError(f"two values of {key!r}")
        found[key] = value
    return found
