from typing import Any

import pytest
from nat.builder.component_utils import recursive_componentref_discovery
from nat.plugin_api import FunctionBaseConfig
from pydantic import TypeAdapter, ValidationError

from nat_dpo_pipeline.plugin.workflows.scorer_config import EnsembleConfig
from nat_dpo_pipeline.plugin.workflows.scorer_settings import ScorerConfig
from nat_dpo_pipeline.strict import StrictConfig

KINDS: dict[str, dict[str, Any]] = {
    "reward_model": {"llm": "reward"},
    "principle": {"llm": "reward", "principle": "correctness"},
    "pooling": {"llm": "reward"},
    "classify": {"llm": "reward"},
    "rating_judge": {"llm": "reward"},
    "pairwise_judge": {"llm": "reward"},
    "group_judge": {"llm": "reward"},
    "tool_calls": {},
    "genrm": {"llm": "reward", "format": "nemotron-super-49b"},
    "function": {"function": "length"},
    "ensemble": {"members": {"a": {"kind": "pooling", "llm": "one"}, "b": {"kind": "function", "function": "two"}}},
}
SCORER: TypeAdapter[Any] = TypeAdapter(ScorerConfig)


class _WorkflowConfig(FunctionBaseConfig, StrictConfig, name="test_scored"):
    scorer: ScorerConfig | None = None


def _load(kind: str, **values: Any) -> Any:
    return SCORER.validate_python({"kind": kind, **KINDS[kind], **values})


def _references(scorer: dict[str, Any]) -> set[str]:
    config = _WorkflowConfig.model_validate({"_type": "test_scored", "scorer": scorer})
    hint: Any = _WorkflowConfig.model_fields["scorer"].annotation
    return {str(node.ref_name) for _, node in recursive_componentref_discovery(config, config.scorer, hint)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_loaded_and_described(kind: str) -> None:
    config = _load(kind)
    assert config.kind == kind
    assert config.__doc__
    fields = type(config).model_fields
    assert all(field.description for name, field in fields.items() if name != "kind")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_key_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ValidationError, match=r"has no 'zzz_unknown'; its keys are .*kind"):
        _load(kind, zzz_unknown=1)


def test_a_misspelt_key_is_refused_with_the_right_one() -> None:
    with pytest.raises(ValidationError, match="RewardModelConfig has no 'weigths'; did you mean 'weights'"):
        _load("reward_model", weigths="helpfulness")


@pytest.mark.parametrize("kind", [kind for kind, values in KINDS.items() if "llm" in values])
@pytest.mark.parametrize("llm", [None, 3, "", [], [""], ["a", 3], {"a": "b"}])
def test_an_llm_is_one_name_or_several(kind: str, llm: object) -> None:
    assert _load(kind, llm=["a", "b"]).llm == ["a", "b"]
    with pytest.raises(ValidationError, match="expected the name of an llm or a list"):
        _load(kind, llm=llm)


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        ("reward_model", "weights", [{}, {"helpfulness": 0.0}, {"helpfulness": float("nan")}, 3, "", "nemotron"]),
        ("reward_model", "user_suffix", [3]),
        ("principle", "principle", ["", None]),
        ("rating_judge", "lowest", [float("-inf"), "low"]),
        ("rating_judge", "highest", [float("inf"), None]),
        ("rating_judge", "criteria", ["", 3]),
        ("pairwise_judge", "criteria", ["", 3]),
        ("genrm", "format", ["nemotron", None]),
        ("ensemble", "combine", ["median"]),
        ("ensemble", "members", [{}, {"a": {"kind": "pooling", "llm": "one"}}, [], None]),
    ],
)
def test_an_impossible_value_is_refused(kind: str, field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValidationError, match=rf"Config\.{field}\b"):
            _load(kind, **{field: value})


def test_unknown_weights_are_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValidationError, match=r"unknown reward weights 'nemotron'; known: helpfulness, nemotron-4-340b"
    ):
        _load("reward_model", weights="nemotron")


@pytest.mark.parametrize(("lowest", "highest"), [(1, 1), (5, 1), (11, 10)])
def test_a_scale_that_does_not_go_up_is_refused(lowest: float, highest: float) -> None:
    with pytest.raises(ValidationError, match="which is not below highest"):
        _load("rating_judge", lowest=lowest, highest=highest)


@pytest.mark.parametrize("kind", ["pairwise_judge", "group_judge", "genrm", "ensemble"])
def test_an_ensemble_of_what_compares_responses_is_refused_in_one_clear_line(kind: str) -> None:
    members = {"good": {"kind": "pooling", "llm": "one"}, "other": {"kind": kind, **KINDS[kind]}}
    with pytest.raises(
        ValidationError, match=f"'other' is of kind '{kind}', but a member of an ensemble scores single"
    ):
        _load("ensemble", members=members)
    with pytest.raises(ValidationError, match="scores single responses"):
        EnsembleConfig(kind="ensemble", members={"a": _load(kind), "b": _load(kind)})


def test_a_missing_kind_is_told_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="a scorer needs a kind; there are reward_model, "):
        SCORER.validate_python({"llm": "reward"})
    with pytest.raises(ValidationError, match=r"no scorer of kind 'reward'; there are reward_model, .*, ensemble"):
        SCORER.validate_python({"kind": "reward", "llm": "reward"})


def test_nat_finds_every_component_that_a_scorer_names() -> None:
    assert _references({"kind": "reward_model", "llm": ["a", "b"]}) == {"a", "b"}
    assert _references({"kind": "genrm", **KINDS["genrm"]}) == {"reward"}
    assert _references({"kind": "ensemble", **KINDS["ensemble"]}) == {"one", "two"}
