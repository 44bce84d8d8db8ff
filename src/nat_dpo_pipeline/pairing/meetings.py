"""Which candidates of a turn meet, for many turns of the same size at once: `core.strategies` over arrays.

Turns are rows of a matrix, their candidates ranked from left to right. A function returns the columns of the better and
of the worse candidates, a row a turn or one row for all.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from types import MappingProxyType

import numpy as np

from nat_dpo_pipeline.core import strategies
from nat_dpo_pipeline.core.strategies import Ranked, Strategy
from nat_dpo_pipeline.core.ties import ROUNDING
from nat_dpo_pipeline.records.columns import Floats, Ints

Meetings = tuple[Ints, Ints]


def exhaustive(values: Floats) -> Meetings:
    better, worse = np.triu_indices(values.shape[1], 1)
    return better[None, :], worse[None, :]


def best_vs_worst(values: Floats) -> Meetings:
    return np.zeros((1, 1), dtype=np.int64), np.full((1, 1), values.shape[1] - 1)


def best_vs_second(values: Floats) -> Meetings:
    return np.zeros((1, 1), dtype=np.int64), first_lower(values)[:, None]


def adjacent(values: Floats) -> Meetings:
    places = np.arange(values.shape[1])
    return places[None, :-1], places[None, 1:]


def mean_minus_2_sigma(values: Floats) -> Meetings:
    """The core's own, as its mean and deviation are exact."""
    found = [_place_near_target(row) for row in values.tolist()]
    return np.zeros((1, 1), dtype=np.int64), np.array(found, dtype=np.int64)[:, None]


def _place_near_target(values: list[float]) -> int:
    ranked = [Ranked(value, place) for place, value in enumerate(values)]  # type: ignore[arg-type]  # a place will do
    ((_, worse),) = strategies.mean_minus_2_sigma(ranked)
    return int(worse.candidate)  # type: ignore[call-overload,no-any-return]


def best_vs_random(values: Floats, seed: int, ids: list[tuple[str, str]]) -> Meetings:
    """`ids` are example and turn of each row."""
    lower = first_lower(values)
    others = values.shape[1] - lower
    drawn = [_draw(seed, *names) % int(count) for names, count in zip(ids, others, strict=True)]
    return np.zeros((1, 1), dtype=np.int64), (lower + np.array(drawn, dtype=np.int64))[:, None]


def _draw(seed: int, example_id: str, turn_id: str) -> int:
    key = repr((seed, example_id, turn_id))
    return int.from_bytes(sha256(key.encode(errors="surrogatepass")).digest())


def first_lower(values: Floats) -> Ints:
    """Return the first column below the best by more than rounding; the second where there is none."""
    best = values[:, :1]
    is_lower = best - values[:, 1:] > ROUNDING * np.abs(best)
    return np.asarray(np.argmax(is_lower, axis=1) + 1, dtype=np.int64)


MEET: Mapping[Strategy, Callable[[Floats], Meetings]] = MappingProxyType(
    {
        Strategy.EXHAUSTIVE: exhaustive,
        Strategy.BEST_VS_WORST: best_vs_worst,
        Strategy.BEST_VS_SECOND: best_vs_second,
        Strategy.ADJACENT: adjacent,
        Strategy.MEAN_MINUS_2_SIGMA: mean_minus_2_sigma,
    }
)
