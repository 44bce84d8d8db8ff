import logging
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from nat_dpo_pipeline.generation.settings import InputKind, RecipeSettings, ResponseMode
from nat_dpo_pipeline.plugin.config import (
    DatasetTrainerAdapterConfig,
    DemoModelConfig,
    DPOTrainerConfig,
    DPOTrajectoryBuilderConfig,
    PreferenceDataConfig,
    ScoredCandidatesConfig,
    SharedDPOTrajectoryBuilderConfig,
)

REQUIRED: dict[type[BaseModel], dict[str, Any]] = {
    PreferenceDataConfig: {"writer_llm": "writer", "reward_llm": "reward"},
    ScoredCandidatesConfig: {},
    DemoModelConfig: {"model_name": "demo/stdlib-writer"},
    DPOTrajectoryBuilderConfig: {},
    SharedDPOTrajectoryBuilderConfig: {},
    DPOTrainerConfig: {},
    DatasetTrainerAdapterConfig: {"output_dir": "out"},
}
NAMES = {
    PreferenceDataConfig: "preference_data",
    ScoredCandidatesConfig: "scored_candidates",
    DemoModelConfig: "dpo_demo",
    DPOTrajectoryBuilderConfig: "dpo_pipeline_traj_builder",
    SharedDPOTrajectoryBuilderConfig: "dpo_traj_builder",
    DPOTrainerConfig: "dpo_trainer",
    DatasetTrainerAdapterConfig: "dataset_trainer_adapter",
}


def _load(config: type[BaseModel], **values: Any) -> BaseModel:
    return config.model_validate({"_type": NAMES[config], **REQUIRED[config], **values})


@pytest.mark.parametrize("config", NAMES)
def test_every_config_has_its_name_a_description_and_described_fields(config: type[BaseModel]) -> None:
    loaded = _load(config)
    assert loaded.type == NAMES[config]  # type: ignore[attr-defined]
    assert config.__doc__
    assert all(field.description for name, field in config.model_fields.items() if name in config.__annotations__)


@pytest.mark.parametrize("config", NAMES)
def test_an_unknown_key_is_refused_by_name(config: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match=f"{NAMES[config]} has no 'zzz_unknown'; its keys are "):
        _load(config, zzz_unknown=1)


@pytest.mark.parametrize(
    ("config", "wrong", "right"),
    [
        (PreferenceDataConfig, "n_subtopic", "n_subtopics"),
        (PreferenceDataConfig, "writer_lm", "writer_llm"),
        (ScoredCandidatesConfig, "candidate_key", "candidates_key"),
        (DemoModelConfig, "seeds", "seed"),
        (DPOTrajectoryBuilderConfig, "min_score_difference", "min_score_diff"),
        (SharedDPOTrajectoryBuilderConfig, "exhaustive_pair", "exhaustive_pairs"),
        (DPOTrainerConfig, "num_run", "num_runs"),
        (DatasetTrainerAdapterConfig, "output_directory", "output_dir"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_right_one(config: type[BaseModel], wrong: str, right: str) -> None:
    with pytest.raises(ValidationError, match=f"{NAMES[config]} has no '{wrong}'; did you mean '{right}'"):
        _load(config, **{wrong: 1})


def test_a_misspelt_required_key_is_told_as_such() -> None:
    with pytest.raises(ValidationError, match="did you mean 'reward_llm'"):
        PreferenceDataConfig.model_validate({"writer_llm": "writer", "rewards_llm": "reward"})


@pytest.mark.parametrize(
    ("config", "field", "values"),
    [
        (PreferenceDataConfig, "n_subtopics", [0, -1, 1001, 1.5, "many"]),
        (PreferenceDataConfig, "n_questions", [0, -1, 1001]),
        (PreferenceDataConfig, "n_responses", [0, 1, 257]),
        (PreferenceDataConfig, "responses", ["both", 2]),
        (PreferenceDataConfig, "input_kind", ["subtopic"]),
        (PreferenceDataConfig, "reward", [{"helpfulness": float("nan")}, {"helpfulness": float("inf")}, 3]),
        (PreferenceDataConfig, "keep_truncated", ["perhaps"]),
        (PreferenceDataConfig, "seed", ["x", 1.5]),
        (PreferenceDataConfig, "max_concurrency", [0, -1]),
        (PreferenceDataConfig, "request_timeout", [0, -1.0]),
        (PreferenceDataConfig, "max_retries", [-1]),
        (PreferenceDataConfig, "ttc_step_name", [None, 3]),
        (ScoredCandidatesConfig, "prompt_key", [None, 3]),
        (ScoredCandidatesConfig, "ttc_step_name", [None, 3]),
        (DemoModelConfig, "model_name", [None]),
        (DemoModelConfig, "seed", ["x"]),
        (DPOTrajectoryBuilderConfig, "min_score_diff", [-0.1, float("nan"), float("inf"), "wide"]),
        (DPOTrajectoryBuilderConfig, "max_pairs_per_turn", [0, -1, 1.5]),
        (DPOTrajectoryBuilderConfig, "exhaustive_pairs", ["perhaps"]),
        (DPOTrajectoryBuilderConfig, "ttc_step_name", [None, 3]),
        (DPOTrainerConfig, "num_runs", [0, -1, 1.5]),
        (DPOTrainerConfig, "max_pairs", [0, -1]),
        (DPOTrainerConfig, "validation_fraction", [-0.1, 1.0, float("nan")]),
        (DPOTrainerConfig, "seed", ["x", None]),
        (DatasetTrainerAdapterConfig, "validation_fraction", [-0.1, 1.0, float("nan")]),
        (DatasetTrainerAdapterConfig, "output_dir", [None]),
        (DatasetTrainerAdapterConfig, "seed", ["x"]),
    ],
)
def test_an_impossible_value_is_refused(config: type[BaseModel], field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValidationError, match=field):
            _load(config, **{field: value})


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (PreferenceDataConfig, {"n_subtopics": 1000, "n_questions": 1, "max_retries": 0, "max_concurrency": 1}),
        (PreferenceDataConfig, {"responses": "independent", "n_responses": 256}),
        (PreferenceDataConfig, {"reward": {"helpfulness": 0.65, "verbosity": -0.4}}),
        (DPOTrajectoryBuilderConfig, {"min_score_diff": 0.0, "max_pairs_per_turn": 1}),
        (DPOTrainerConfig, {"num_runs": 1, "max_pairs": 1, "validation_fraction": 0.0}),
        (DatasetTrainerAdapterConfig, {"validation_fraction": 0.99}),
    ],
)
def test_the_bounds_themselves_are_allowed(config: type[BaseModel], values: dict[str, Any]) -> None:
    dumped = _load(config, **values).model_dump()
    assert {name: dumped[name] for name in values} == values


def test_the_builder_has_nvidias_fields_and_defaults() -> None:
    config = SharedDPOTrajectoryBuilderConfig()
    assert config.model_dump(exclude={"type", "reward"}) == {
        "ttc_step_name": "dpo_candidate_move",
        "exhaustive_pairs": True,
        "min_score_diff": 0.0,
        "max_pairs_per_turn": None,
        "reward_from_score_diff": True,
        "require_multiple_candidates": True,
    }


@pytest.mark.parametrize("config", [DPOTrajectoryBuilderConfig, SharedDPOTrajectoryBuilderConfig])
def test_the_old_name_of_the_step_name_is_taken_with_a_warning(
    config: type[DPOTrajectoryBuilderConfig], caplog: pytest.LogCaptureFixture
) -> None:
    source = {"_type": NAMES[config], "custom_step_name": "moves"}
    with caplog.at_level(logging.WARNING, "nat_dpo_pipeline"):
        assert config.model_validate(source).ttc_step_name == "moves"
    assert caplog.messages == ["`custom_step_name` is an old name of `ttc_step_name`: rename it in the configuration"]
    assert source == {"_type": NAMES[config], "custom_step_name": "moves"}


def test_both_names_of_the_step_name_must_agree() -> None:
    both = {"ttc_step_name": "moves", "custom_step_name": "moves"}
    assert DPOTrajectoryBuilderConfig.model_validate(both).ttc_step_name == "moves"
    with pytest.raises(ValidationError, match="both ttc_step_name and custom_step_name are set, to different names"):
        DPOTrajectoryBuilderConfig.model_validate({**both, "ttc_step_name": "steps"})


def test_the_new_name_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    DPOTrajectoryBuilderConfig.model_validate({"ttc_step_name": "moves"})
    assert caplog.messages == []


def _recipe(**values: object) -> PreferenceDataConfig:
    return PreferenceDataConfig.model_validate({"writer_llm": "w", "reward_llm": "r", **values})


def test_paired_responses_are_two() -> None:
    assert _recipe(n_responses=2).responses is ResponseMode.PAIRED
    with pytest.raises(ValidationError, match="n_responses is 3, but `responses: paired` always has 2"):
        _recipe(n_responses=3)


def test_the_recipe_gets_its_settings() -> None:
    config = _recipe(n_subtopics=3, n_questions=4, n_responses=5, responses="independent", seed=6, keep_truncated=True)
    assert config.input_kind is InputKind.AUTO
    assert config.recipe_settings() == RecipeSettings(3, 4, 5, ResponseMode.INDEPENDENT, 6, keep_truncated=True)


def test_the_recipes_defaults_are_nvidias() -> None:
    assert _recipe().recipe_settings() == RecipeSettings(
        n_subtopics=10, n_questions=10, n_responses=2, responses=ResponseMode.PAIRED
    )


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"tokens_per_minute": 0}, "tokens_per_minute"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_wait_seconds": 0}, "max_wait_seconds"),
        ({"request_per_minute": 40}, "no 'request_per_minute'; did you mean 'requests_per_minute'"),
    ],
)
def test_an_impossible_limit_is_refused(limit: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _recipe(limits={"w": limit})


def test_limits_are_those_of_the_models_that_are_used() -> None:
    assert _recipe(limits={"r": {"requests_per_minute": 40}}).limits["r"].requests_per_minute == 40
    with pytest.raises(ValidationError, match="limits name 'x', which this workflow does not use; it uses r, w"):
        _recipe(limits={"x": {"requests_per_minute": 40}})


def test_an_output_folder_is_a_path() -> None:
    assert DatasetTrainerAdapterConfig.model_validate({"output_dir": "a/b"}).output_dir == Path("a/b")


@pytest.mark.parametrize(
    ("config", "values", "said"),
    [
        (DPOTrainerConfig, {"validation_fraction": 1.5}, "dpo_trainer.validation_fraction is 1.5: "),
        (DPOTrainerConfig, {"num_runs": "many"}, "dpo_trainer.num_runs is 'many': "),
        (PreferenceDataConfig, {"reward_llm": "r"}, "preference_data.writer_llm: Field required"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(config: type[BaseModel], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        config.model_validate(values)
