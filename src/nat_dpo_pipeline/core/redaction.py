"""Values that shall not be kept, replaced by a placeholder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PLACEHOLDER = "[redacted]"


@dataclass(frozen=True, slots=True)
class Redaction:
    """What to replace: all that a pattern matches, in texts, whole numbers and keys, and the values at some paths.

    A path leads through objects, and through each element of a list. One that leads into a text replaces all of it, as
    nobody can say where in there the value is.
    """

    patterns: tuple[re.Pattern[str], ...] = ()
    paths: tuple[tuple[str, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.patterns or self.paths)

    def apply(self, values: Mapping[str, object]) -> dict[str, object]:
        """`values`, which are what JSON can hold, without what shall not be kept."""
        kept = dict(values)
        for name, *rest in self.paths:
            if name in kept:
                kept[name] = _hidden(kept[name], rest)
        return {name: self._masked(value) for name, value in kept.items()}

    def _masked(self, value: object) -> object:
        if isinstance(value, dict):
            masked: dict[str, object] = {}
            for key, one in value.items():
                masked[_unused(self._text(key), masked)] = self._masked(one)
            return masked
        if isinstance(value, list):
            return [self._masked(one) for one in value]
        if isinstance(value, str):
            return self._text(value)
        if _is_whole(value):
            text = str(value)
            masked_text = self._text(text)
            return value if masked_text == text else masked_text
        return value

    def _text(self, text: str) -> str:
        for pattern in self.patterns:
            text = pattern.sub(PLACEHOLDER, text)
        return text


def _is_whole(value: object) -> bool:
    # Not every number: the digits of 1/3 look like those of a telephone.
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1


def _hidden(value: object, path: Sequence[str]) -> object:
    if value is None:
        return None
    if path and isinstance(value, dict):
        name, *rest = path
        return {**value, name: _hidden(value[name], rest)} if name in value else value
    if path and isinstance(value, list):
        return [_hidden(one, path) for one in value]
    return PLACEHOLDER


def _unused(key: str, used: Mapping[str, object]) -> str:
    """Keys that became one are kept apart, so that no value is lost."""
    while key in used:
        key += "'"
    return key
