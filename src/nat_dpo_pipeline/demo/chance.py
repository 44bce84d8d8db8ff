"""Choices that are the same for the same seeds, on every machine and in every process."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chance:
    """Draws that depend on the app's seed, the request's seed, the place of the reply among `n`, and the key."""

    app_seed: int
    request_seed: int | None = None
    place: int = 0

    def number(self, *key: object) -> int:
        return _digest(self.app_seed, self.request_seed, self.place, *key)

    def pick(self, items: Sequence[T], *key: object) -> T:
        return items[self.number(*key) % len(items)]

    def shuffled(self, items: Iterable[T], *key: object) -> list[T]:
        return sorted(items, key=lambda item: self.number(*key, item))

    def rotated(self, items: Iterable[T], *key: object) -> T:
        """One of the items; neighbouring request seeds and places are sure to get different ones."""
        order = sorted(items, key=lambda item: _digest(self.app_seed, *key, item))
        return order[((self.request_seed or 0) + self.place) % len(order)]


def _digest(*key: object) -> int:
    # `hash()` differs from process to process; surrogates can reach here from JSON escapes.
    text = "\x1f".join(map(str, key)).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8])
