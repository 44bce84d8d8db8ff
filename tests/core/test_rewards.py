from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.rewards import HELPSTEER_ATTRIBUTES, WEIGHTS, Reward, combine, weights_named
from nat_dpo_pipeline.errors import ConfigurationError, InputError

NOTEBOOK = {
    "helpfulness": 4.09375,
    "correctness": 4.03125,
    "coherence": 4.25,
    "complexity": 0.5703125,
    "verbosity": 1.109375,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_found_by_name_and_speak_of_known_attributes(name: str) -> None:
    weights = weights_named(name)
    assert weights is WEIGHTS[name]
    assert weights
    assert set(weights) <= set(HELPSTEER_ATTRIBUTES)


def test_weights_of_an_unknown_name_are_a_configuration_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'nemotron'.*known: helpfulness, nemotron-4-340b, llama3-70b"):
        weights_named("nemotron")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("helpfulness", 4.09375),
        ("nemotron-4-340b", 0.3 * 4.09375 + 0.74 * 4.03125 + 0.46 * 4.25 + 0.47 * 0.5703125 - 0.33 * 1.109375),
        ("llama3-70b-steerlm", 0.65 * 4.09375 + 0.8 * 4.03125 + 0.45 * 4.25 + 0.55 * 0.5703125 - 0.4 * 1.109375),
    ],
)
def test_attributes_are_combined_as_the_model_card_says(name: str, expected: float) -> None:
    assert isclose(combine(Reward(attributes=NOTEBOOK), weights_named(name)), expected)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_scalar_reward_is_taken_as_it_is(scalar: float) -> None:
    assert combine(Reward(scalar=scalar), weights_named("nemotron-4-340b")) == scalar


def test_a_missing_attribute_is_named_with_what_is_there() -> None:
    with pytest.raises(InputError, match="has no correctness, coherence, verbosity; it has helpfulness, complexity"):
        combine(Reward(attributes={"helpfulness": 1.0, "complexity": 1.0}), weights_named("nemotron-4-340b"))


def test_a_reward_of_nothing_is_an_input_error() -> None:
    with pytest.raises(InputError, match="has no helpfulness; it has nothing"):
        combine(Reward(), weights_named("helpfulness"))


def test_attributes_that_overflow_are_an_input_error_and_not_an_infinite_score() -> None:
    with pytest.raises(InputError, match="add up to inf"):
        combine(Reward(attributes=dict.fromkeys(HELPSTEER_ATTRIBUTES, 1.7e308)), {"helpfulness": 1.0, "coherence": 1.0})
