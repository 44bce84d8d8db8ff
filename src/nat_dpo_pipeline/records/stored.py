"""What a run notes of itself, as JSON in files that it reads again: dataclasses of plain values."""

from collections import Counter
from typing import TypeVar

import msgspec

T = TypeVar("T")


def stored(value: object) -> bytes:
    """Return a dataclass as JSON."""
    return msgspec.json.encode(value)


def restored(kind: type[T], text: bytes) -> T:
    """Return the dataclass that was stored. Raises ValueError for what is none."""
    return msgspec.json.decode(text, type=kind, dec_hook=_counter)


def _counter(kind: type, value: object) -> object:
    if getattr(kind, "__origin__", kind) is not Counter:
        raise NotImplementedError(kind)
    return Counter(value)  # type: ignore[call-overload]
