"""From what one or several reward models say to the one number that ranks a candidate."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import fsum, isfinite
from types import MappingProxyType

from nat_dpo_pipeline.core.ties import is_higher
from nat_dpo_pipeline.errors import ConfigurationError, InputError

HELPSTEER_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")

#: Weights by name: NVIDIA's notebook ranks by helpfulness alone; the others are on the model cards of
#: Nemotron-4-340B-Reward and Llama3-70B-SteerLM-RM.
WEIGHTS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "helpfulness": {"helpfulness": 1.0},
        "nemotron-4-340b": dict(zip(HELPSTEER_ATTRIBUTES, (0.3, 0.74, 0.46, 0.47, -0.33), strict=True)),
        "llama3-70b-steerlm": dict(zip(HELPSTEER_ATTRIBUTES, (0.65, 0.8, 0.45, 0.55, -0.4), strict=True)),
    }
)


class Combination(StrEnum):
    """How the values of several scorers become one: their mean, or the lowest of them."""

    MEAN = "mean"
    WORST = "worst"


class GenRMFormat(StrEnum):
    """How a generative reward model answers, named for the model that does."""

    NEMOTRON_SUPER_49B = "nemotron-super-49b"
    QWEN3_NEMOTRON_235B = "qwen3-nemotron-235b"


@dataclass(frozen=True, slots=True)
class Reward:
    """What a reward model said: attributes by name, or a single scalar. Exactly one of the two is given."""

    attributes: Mapping[str, float] | None = None
    scalar: float | None = None


def weights_named(name: str) -> Mapping[str, float]:
    """The weights called `name`; raises ConfigurationError when there are none."""
    if name not in WEIGHTS:
        raise ConfigurationError(f"unknown reward weights {name!r}; known: {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def combine(reward: Reward, weights: Mapping[str, float]) -> float:
    """The weighted sum of the attributes, or the scalar as it is. Raises InputError when an attribute is missing."""
    if reward.scalar is not None:
        return reward.scalar
    attributes = reward.attributes or {}
    missing = [name for name in weights if name not in attributes]
    if missing:
        raise InputError(f"the reward has no {', '.join(missing)}; it has {', '.join(attributes) or 'nothing'}")
    score = sum(weight * attributes[name] for name, weight in weights.items())
    if not isfinite(score):
        raise InputError(f"the attributes {dict(attributes)!r} add up to {score!r}")
    return score


def combine_members(values: Sequence[float], combination: Combination) -> float:
    """One value for those of several scorers, at least one. Raises InputError when they are too large to add up."""
    if combination is Combination.WORST:
        return min(values)
    try:
        return fsum(values) / len(values)
    except OverflowError as error:
        raise InputError(f"the values {list(values)!r} have no finite mean") from error


def agreement(members: Sequence[Mapping[str, float]]) -> list[float | None]:
    """How far the scorers of an ensemble agree on each candidate of one turn; `members` has each one's values by name.

    Two candidates are ordered by each scorer: the one, the other, or neither is better. The share of scorers that order
    them as most do is averaged over the other candidates, so it is 1 where all agree. None where no scorer has a value
    for this candidate and another one.
    """
    return [_agreement_on(one, [*members[:index], *members[index + 1 :]]) for index, one in enumerate(members)]


def _agreement_on(one: Mapping[str, float], others: Sequence[Mapping[str, float]]) -> float | None:
    shares = [_largest_share(one, other) for other in others if one.keys() & other.keys()]
    return fsum(shares) / len(shares) if shares else None


def _order(one: float, other: float) -> int:
    return is_higher(one, other) - is_higher(other, one)


def _largest_share(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    orders = Counter(_order(one[name], other[name]) for name in one.keys() & other.keys())
    return max(orders.values()) / len(one.keys() | other.keys())
