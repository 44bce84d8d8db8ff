import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.split import (
    deduplicate,
    is_held_out,
    sample,
    stratified_validation_prompts,
    validation_prompts,
)

PROMPTS = st.lists(st.text(st.characters(), max_size=4), max_size=20)
FRACTIONS = st.floats(0.0, 1.0, exclude_max=True)
SEEDS = st.integers(-(2**70), 2**70)


@given(PROMPTS, FRACTIONS, SEEDS, st.randoms())
def test_validation_does_not_depend_on_the_order_or_repetition_of_prompts(
    prompts: list[str], fraction: float, seed: int, rng: random.Random
) -> None:
    shuffled = [*prompts, *prompts]
    rng.shuffle(shuffled)
    assert validation_prompts(shuffled, fraction, seed) == validation_prompts(prompts, fraction, seed)


@given(PROMPTS, FRACTIONS, SEEDS)
def test_validation_takes_some_of_the_prompts_and_never_all(prompts: list[str], fraction: float, seed: int) -> None:
    chosen = validation_prompts(prompts, fraction, seed)
    distinct = set(prompts)
    assert chosen <= distinct
    if fraction == 0.0 or len(distinct) < 2:
        assert not chosen
    else:
        assert 1 <= len(chosen) < len(distinct)
        assert len(chosen) in {round(fraction * len(distinct)), 1, len(distinct) - 1}


@given(PROMPTS, FRACTIONS, SEEDS)
def test_a_larger_fraction_only_adds_prompts(prompts: list[str], fraction: float, seed: int) -> None:
    assert validation_prompts(prompts, fraction / 2, seed) <= validation_prompts(prompts, fraction, seed)


def test_a_tenth_of_a_hundred_prompts_is_ten() -> None:
    assert len(validation_prompts(map(str, range(100)), 0.1, 0)) == 10


def test_another_seed_chooses_other_prompts() -> None:
    prompts = [str(number) for number in range(100)]
    assert len({validation_prompts(prompts, 0.1, seed) for seed in range(5)}) == 5


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"got {fraction!r}"):
        validation_prompts(["a", "b"], fraction, 0)


@given(st.lists(st.integers()), st.integers(0, 30), SEEDS)
def test_a_sample_keeps_count_and_order_and_is_the_same_for_the_same_seed(
    items: list[int], count: int, seed: int
) -> None:
    numbered = list(enumerate(items))
    drawn = sample(numbered, count, seed)
    assert len(drawn) == min(count, len(items))
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(numbered)
    assert drawn == sample(numbered, count, seed)


def test_another_seed_draws_another_sample() -> None:
    assert len({tuple(sample(range(1000), 5, seed)) for seed in range(5)}) == 5


def test_a_sample_of_everything_is_a_copy() -> None:
    items = [1, 2]
    assert sample(items, 2, 0) == items
    assert sample(items, 2, 0) is not items


@given(st.lists(st.tuples(st.integers(0, 5), st.integers())))
def test_deduplication_keeps_the_first_item_of_each_key_in_order(items: list[tuple[int, int]]) -> None:
    kept = deduplicate(items, lambda item: item[0])
    expected = [item for index, item in enumerate(items) if item[0] not in {key for key, _ in items[:index]}]
    assert kept == expected


STRATA = st.lists(st.tuples(st.text(max_size=4), st.sampled_from("abc")), max_size=40)


@given(STRATA, st.floats(0, 0.99), st.integers(0, 5))
def test_every_stratum_gives_its_share_of_the_validation_prompts(
    prompts: list[tuple[str, str]], fraction: float, seed: int
) -> None:
    held_out = stratified_validation_prompts(prompts, fraction, seed)
    first = dict(reversed(prompts))
    assert len(held_out) == len(validation_prompts(first, fraction, seed))
    for stratum in set(first.values()):
        inside = {prompt for prompt, own in first.items() if own == stratum}
        exact = len(held_out) * len(inside) / len(first)
        assert abs(len(held_out & inside) - exact) < 1


@given(STRATA)
def test_a_stratified_split_does_not_depend_on_the_order(prompts: list[tuple[str, str]]) -> None:
    distinct = list({prompt: (prompt, stratum) for prompt, stratum in prompts}.values())
    expected = stratified_validation_prompts(distinct, 0.3, 1)
    assert stratified_validation_prompts(reversed(distinct), 0.3, 1) == expected


@given(st.text(st.characters()), FRACTIONS, FRACTIONS, SEEDS)
def test_a_larger_fraction_holds_out_what_a_smaller_one_does(prompt: str, one: float, other: float, seed: int) -> None:
    smaller, larger = sorted((one, other))
    assert is_held_out(prompt, larger, seed) >= is_held_out(prompt, smaller, seed)
    assert not is_held_out(prompt, 0.0, seed)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.9])
def test_of_many_prompts_about_the_fraction_is_held_out(fraction: float) -> None:
    held_out = [is_held_out(f"prompt {number}", fraction, seed=1) for number in range(20_000)]
    assert sum(held_out) / 20_000 == pytest.approx(fraction, abs=0.011)
    assert held_out != [is_held_out(f"prompt {number}", fraction, seed=2) for number in range(20_000)]


def test_a_prompt_has_the_same_rank_alone_as_among_others() -> None:
    prompts = [f"prompt {number}" for number in range(2000)]
    alone = {prompt for prompt in prompts if is_held_out(prompt, 0.1, 3)}
    assert alone <= validation_prompts(prompts, 0.15, 3)
    assert alone >= validation_prompts(prompts, 0.05, 3)
