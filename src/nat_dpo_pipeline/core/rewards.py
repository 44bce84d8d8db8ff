"""From the attribute scores of a reward model to the one number that ranks a candidate."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType

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
