"""Many numbers in little memory: a fair sample of them, its quantiles and its histogram."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, isfinite, log10
from random import Random
from sys import float_info

SAMPLE_SIZE = 200_000
_BINS = 32
_STEPS = (1.0, 2.0, 5.0, 10.0)
# 0.9 - 0.1 is a little less than 0.8: what is so near below an edge lies on it.
_NOISE = 1e-9


@dataclass(frozen=True, slots=True)
class Summary:
    """How numbers are spread; all zero when there are none."""

    count: int = 0
    mean: float = 0.0
    minimum: float = 0.0
    lower_quartile: float = 0.0
    median: float = 0.0
    upper_quartile: float = 0.0
    maximum: float = 0.0


class Sample:
    """Up to `limit` of the values that were added, each as likely to be among them (Vitter's algorithm R, seeded).

    Count, mean, minimum and maximum are of all values.
    """

    def __init__(self, limit: int = SAMPLE_SIZE) -> None:
        self.count = 0
        self._limit = limit
        self._kept = array("d")
        self._mean = 0.0
        self._minimum = self._maximum = 0.0
        self._random = Random(0)  # noqa: S311 - no secret

    def add(self, value: float) -> None:
        """Add a finite value."""
        self._minimum = min(self._minimum, value) if self.count else value
        self._maximum = max(self._maximum, value) if self.count else value
        self.count += 1
        self._mean += value / self.count - self._mean / self.count
        if len(self._kept) < self._limit:
            self._kept.append(value)
        elif (place := self._random.randrange(self.count)) < self._limit:
            self._kept[place] = value

    def values(self) -> list[float]:
        """The values in the sample, ascending."""
        return sorted(self._kept)

    def summary(self) -> Summary:
        if not self.count:
            return Summary()
        values = self.values()
        low, middle, high = (quantile(values, share) for share in (0.25, 0.5, 0.75))
        return Summary(self.count, self._mean, self._minimum, low, middle, high, self._maximum)

    def share_below(self, bound: float) -> float:
        """The share of values below `bound`, by more than arithmetic is off."""
        values = self.values()
        limit = bound - _NOISE * abs(bound)
        return sum(value < limit for value in values) / len(values) if values else 0.0


def quantile(ascending: Sequence[float], share: float) -> float:
    """The value with `share` of the others below it, between two of them where needed; 0 of none."""
    if not ascending:
        return 0.0
    place = share * (len(ascending) - 1)
    low = floor(place)
    weight = place - low
    high = ascending[min(low + 1, len(ascending) - 1)]
    return ascending[low] * (1 - weight) + high * weight


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie from each edge up to the next, by the name of the series; the last bin has its upper edge."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


def histogram(series: Mapping[str, Sequence[float]]) -> Histogram:
    """The series over one set of round edges."""
    every = [value for values in series.values() for value in values]
    edges = _edges(min(every), max(every)) if every else (0.0, 1.0)
    return Histogram(edges, {name: _counted(values, edges) for name, values in series.items()})


def _counted(values: Iterable[float], edges: tuple[float, ...]) -> tuple[int, ...]:
    counts = [0] * (len(edges) - 1)
    noise = _NOISE * (edges[1] - edges[0])
    for value in values:
        counts[min(max(bisect_right(edges, value + noise) - 1, 0), len(counts) - 1)] += 1
    return tuple(counts)


def _edges(low: float, high: float) -> tuple[float, ...]:
    """Round edges that hold both ends; two where the range is none, or too large or too fine for arithmetic."""
    width = _round_step((high - low) / _BINS) if isfinite(high - low) else 0.0
    if not width:
        return (low, high) if low < high else _around(low)
    first = floor(low / width)
    edges = tuple((first + place) * width for place in range(floor(high / width) - first + 2))
    is_ascending = all(map(isfinite, (edges[0], edges[-1]))) and all(one < other for one, other in pairwise(edges))
    return edges if is_ascending and edges[0] <= low and high <= edges[-1] else (low, high)


def _around(value: float) -> tuple[float, float]:
    half = max(0.5, abs(value) * 1e-9)
    return max(value - half, -float_info.max), min(value + half, float_info.max)


def _round_step(width: float) -> float:
    if width <= 0.0:
        return 0.0
    unit = 10.0 ** floor(log10(width))
    return next((unit * step for step in _STEPS if unit * step >= width), width) if unit else 0.0
