from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.rewards import (
    HELPSTEER_ATTRIBUTES,
    WEIGHTS,
    Combination,
    Reward,
    agreement,
    combine,
    combine_members,
    weights_named,
)
from nat_dpo_pipeline.errors import ConfigurationError, InputError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TURNS = st.integers(1, 4).flatmap(
    lambda size: st.lists(
        st.fixed_dictionaries({f"member {index}": st.integers(0, 3).map(float) for index in range(size)}),
        min_size=2,
        max_size=5,
    )
)
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


@given(st.lists(FINITE, min_size=1, max_size=5))
def test_several_values_become_one_between_the_lowest_and_the_highest(values: list[float]) -> None:
    assert combine_members(values, Combination.WORST) == min(values)
    try:
        mean = combine_members(values, Combination.MEAN)
    except InputError:
        assert max(map(abs, values)) > 1e307
    else:
        assert min(values) <= mean <= max(values) or isclose(mean, min(values)) or isclose(mean, max(values))


@given(st.permutations([0.1, 0.2, 0.3, 0.7]))
def test_a_mean_does_not_depend_on_the_order_of_the_members(values: list[float]) -> None:
    assert combine_members(values, Combination.MEAN) == combine_members(sorted(values), Combination.MEAN)


def test_values_without_a_finite_mean_are_an_input_error() -> None:
    with pytest.raises(InputError, match="no finite mean"):
        combine_members([1.7e308, 1.7e308], Combination.MEAN)


def test_members_that_split_agree_by_the_share_of_the_larger_part() -> None:
    members = [{"a": 3.0, "b": 1.0, "c": 9.0}, {"a": 2.0, "b": 0.0, "c": 10.0}, {"a": 1.0, "b": 0.5, "c": 11.0}]
    assert agreement(members) == [pytest.approx(2 / 3)] * 3
    assert agreement([{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}]) == [0.5, 0.5]


def test_agreement_on_a_candidate_is_the_mean_over_the_others() -> None:
    members = [{"a": 3.0, "b": 3.0}, {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 2.0}]
    assert agreement(members) == [1.0, 0.75, 0.75]


def test_a_member_that_scored_only_one_of_two_candidates_agrees_with_none() -> None:
    assert agreement([{"a": 1.0, "b": 1.0}, {"a": 2.0}, {}]) == [0.5, 0.5, None]


@pytest.mark.parametrize("members", [[], [{"a": 1.0}], [{}, {}], [{"a": 1.0}, {"b": 1.0}]])
def test_there_is_no_agreement_where_nothing_is_compared(members: list[dict[str, float]]) -> None:
    assert agreement(members) == [None] * len(members)


@given(TURNS)
def test_agreement_is_a_share_of_at_least_a_third(members: list[dict[str, float]]) -> None:
    assert all(share is not None and 1 / 3 - 1e-9 <= share <= 1 for share in agreement(members))


@given(TURNS)
def test_members_that_order_alike_agree_whatever_their_scales(members: list[dict[str, float]]) -> None:
    firsts = [values["member 0"] for values in members]
    alike = [{"a": value, "b": 10 * value - 3, "c": value**3} for value in firsts]
    assert agreement(alike) == [1.0] * len(alike)
