"""What `best_of_n` can be told, and what it refuses in a line."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.builder.component_utils import recursive_componentref_discovery
from pydantic import ValidationError

from nat_dpo_pipeline.plugin.middleware_config import BestOfNConfig, VaryConfig
from nat_dpo_pipeline.strict import in_words

JUDGE = {"kind": "rating_judge", "llm": "judge"}
GIVEN: dict[str, Any] = {"_type": "best_of_n", "n": 3, "allow_repeated_calls": True, "scorer": JUDGE}


def _refused(**settings: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        BestOfNConfig.model_validate({**GIVEN, **settings})
    line = in_words(refused.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n": 0}, "best_of_n.n is 0"),
        ({"n": 257}, "best_of_n.n is 257"),
        ({"sample_rate": 1.1}, "best_of_n.sample_rate is 1.1"),
        ({"sample_rate": -0.1}, "best_of_n.sample_rate is -0.1"),
        ({"max_seconds": 0}, "best_of_n.max_seconds is 0"),
        ({"max_seconds": float("inf")}, "best_of_n.max_seconds is inf"),
        ({"return": "worst"}, "best_of_n.return is 'worst'"),
        ({"retrun": "best"}, "best_of_n has no 'retrun'; did you mean 'return'?"),
        ({"return": "first", "returns": "best"}, "best_of_n.returns is 'best': Extra inputs are not permitted"),
        ({"calls_at_once": 0}, "best_of_n.calls_at_once is 0"),
        ({"step_name": ""}, "best_of_n.step_name is ''"),
        ({"prompt": "output"}, "best_of_n.prompt is 'output'"),
        ({"sample_rat": 1.0}, "best_of_n has no 'sample_rat'; did you mean 'sample_rate'?"),
        ({"allow_repeated_calls": False}, "If it has no side effects, say so with allow_repeated_calls: true"),
        ({"scorer": None}, "best_of_n.n is 3, but there is no scorer"),
        ({"scorer": {"kind": "oracle", "llm": "judge"}}, "'oracle'"),
        ({"scorer": {"kind": "rating_judge"}}, "RatingJudgeConfig.llm: Field required"),
        ({"scorer": {**JUDGE, "lowest": 10}}, "lowest is 10, which is not below highest"),
        (
            {"n": 1, "scorer": {"kind": "pairwise_judge", "llm": "judge"}},
            "n is 1, but a scorer of kind 'pairwise_judge'",
        ),
        ({"vary": {"llm": "model"}}, "nothing to vary: give temperatures or a seed"),
        ({"vary": {"llm": "model", "temperatures": [-1]}}, "VaryConfig.temperatures"),
        ({"ceiling": {}}, "a ceiling needs calls or cost"),
        ({"ceiling": {"cost": 1}}, "ceiling.cost needs prices of judge"),
        ({"n": 1, "scorer": None, "ceiling": {"cost": 1}}, "ceiling.cost needs prices of a scorer"),
        (
            {"ceiling": {"cost": 1}, "scorer": {"kind": "function", "function": "mine"}},
            "nobody knows what the function 'mine' costs; use ceiling.calls",
        ),
        ({"limits": {"other": {"max_concurrency": 1}}}, "limits name 'other', which the scorer does not use"),
        ({"prices": {"other": {"prompt": 1, "completion": 1}}}, "prices name 'other', which the scorer does not use"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(settings: dict[str, Any], words: str) -> None:
    assert words in _refused(**settings)


def test_a_key_at_the_wrong_place_is_not_told() -> None:
    with pytest.raises(ValidationError) as refused:
        BestOfNConfig.model_validate({**GIVEN, "scorer": {**JUDGE, "api_key": "sk-12345"}})
    assert "RatingJudgeConfig has no 'api_key'" in str(refused.value)
    assert "sk-12345" not in str(refused.value)


def test_every_setting_is_described() -> None:
    own = [field for name, field in BestOfNConfig.model_fields.items() if name != "type"]
    assert all(field.description for field in own)


def test_it_takes_the_yaml_of_its_scorer_and_return() -> None:
    config = BestOfNConfig.model_validate({**GIVEN, "return": "first", "vary": {"llm": "model", "seed": 1}})
    assert config.returns == "first"
    assert set(config.names()) == {("llms", "judge"), ("llms", "model")}
    scorer = config.scorer_config()
    assert scorer is not None
    assert scorer.kind == "rating_judge"


def test_python_names_what_to_return_with_a_word_that_is_no_keyword() -> None:
    config = BestOfNConfig.model_validate({**GIVEN, "returns": "first"})
    assert config.returns == "first"
    assert BestOfNConfig.model_validate(config.model_dump()) == config


def test_nat_finds_no_references_in_it() -> None:
    """It builds a middleware that has some after functions that it wraps, which then do not find it."""
    members = {"a": JUDGE, "b": {"kind": "function", "function": "mine"}}
    ensemble = {"scorer": {"kind": "ensemble", "members": members}, "vary": {"llm": "model", "seed": 1}}
    prices = {"prices": {"judge": {"prompt": 1, "completion": 1}}, "limits": {"judge": {"max_retries": 1}}}
    config = BestOfNConfig.model_validate({**GIVEN, **ensemble, **prices})
    found = [
        reference
        for name, field in BestOfNConfig.model_fields.items()
        for reference in recursive_componentref_discovery(config, getattr(config, name), field.annotation)  # type: ignore[arg-type]
    ]
    assert found == []


@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=5) | st.none(), st.integers(0, 100) | st.none(), st.integers(0, 300)
)
def test_the_nth_call_has_the_nth_temperature_and_seed(
    temperatures: list[float] | None, seed: int | None, call: int
) -> None:
    if temperatures is None and seed is None:
        return
    sampling = VaryConfig(llm="model", temperatures=temperatures, seed=seed).sampling(call)
    assert sampling.temperature == (None if temperatures is None else temperatures[call % len(temperatures)])
    assert sampling.seed == (None if seed is None else seed + call)
