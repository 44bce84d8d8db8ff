"""Numbers for texts that are the same in every process, which `hash` is not."""

from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_FACTORS = tuple(np.uint64(one) for one in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_SHIFT = np.uint64(29)


def digest(text: str) -> bytes:
    """128 bits."""
    return sha256(text.encode(errors="surrogatepass")).digest()[:16]


def hashes(texts: Iterable[str]) -> Hashes:
    """64 bits of each text."""
    return np.frombuffer(b"".join(digest(text)[:8] for text in texts), dtype="<u8").astype(np.uint64)


def turn_text(run_id: str, example_id: str, turn_id: str) -> str:
    """What tells turns of flat rows apart, as one text."""
    return f"{run_id}\x1f{example_id}\x1f{turn_id}"


def mixed(*parts: Hashes) -> Hashes:
    """One number of several, which depends on their order."""
    total = np.zeros(len(parts[0]), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part, factor in zip(parts, _FACTORS, strict=False):
            total = (total ^ part) * factor
            total ^= total >> _SHIFT
    return total


def buckets_of(values: Hashes, buckets: int) -> NDArray[np.int64]:
    """Return the bucket of each number: all numbers of a bucket are below those of the next one."""
    width = np.uint64(-(-(1 << 64) // buckets)) if buckets > 1 else None
    return np.zeros(len(values), dtype=np.int64) if width is None else (values // width).astype(np.int64)
