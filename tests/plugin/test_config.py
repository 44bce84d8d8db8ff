import logging
import re
from pathlib import Path
from typing import Any

import pytest
from nat.data_models.config import Config
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema
from pydantic import BaseModel, ValidationError

from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.generation.settings import (
    InputKind,
    RecipeSettings,
    ResponseMode,
    Spread,
    StepName,
    StepSampling,
)
from nat_dpo_pipeline.plugin.finetuning_config import (
    DatasetTrainerAdapterConfig,
    DPOTrainerConfig,
    DPOTrajectoryBuilderConfig,
    NeMoCustomizerTrainerAdapterConfig,
    NeMoCustomizerTrainerConfig,
    SharedDPOTrajectoryBuilderConfig,
    TrlTrainerAdapterConfig,
)
from nat_dpo_pipeline.plugin.workflow_config import (
    DemoModelConfig,
    ModelPoolConfig,
    PreferenceDataConfig,
    ScoredCandidatesConfig,
    llms_in,
)
from nat_dpo_pipeline.plugin.workflows.scorer_config import EnsembleConfig, RewardModelConfig

REQUIRED: dict[type[BaseModel], dict[str, Any]] = {
    PreferenceDataConfig: {"writer_llm": "writer", "reward_llm": "reward"},
    ScoredCandidatesConfig: {},
    DemoModelConfig: {"model_name": "demo/stdlib-writer"},
    DPOTrajectoryBuilderConfig: {},
    SharedDPOTrajectoryBuilderConfig: {},
    DPOTrainerConfig: {},
    DatasetTrainerAdapterConfig: {"output_dir": "out"},
    NeMoCustomizerTrainerConfig: {},
    NeMoCustomizerTrainerAdapterConfig: {
        "entity_host": "http://a",
        "datastore_host": "http://b",
        "namespace": "ns",
        "customization_config": "meta/m@v1",
    },
    TrlTrainerAdapterConfig: {"model": "tiny", "output_dir": "out"},
}
NAMES = {
    PreferenceDataConfig: "preference_data",
    ScoredCandidatesConfig: "scored_candidates",
    DemoModelConfig: "dpo_demo",
    DPOTrajectoryBuilderConfig: "dpo_pipeline_traj_builder",
    SharedDPOTrajectoryBuilderConfig: "dpo_traj_builder",
    DPOTrainerConfig: "dpo_trainer",
    DatasetTrainerAdapterConfig: "dataset_trainer_adapter",
    NeMoCustomizerTrainerConfig: "dpo_nemo_customizer_trainer",
    NeMoCustomizerTrainerAdapterConfig: "dpo_nemo_customizer_trainer_adapter",
    TrlTrainerAdapterConfig: "trl_trainer_adapter",
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
        (PreferenceDataConfig, "max_top_ups", [-1, 101, 1.5]),
        (PreferenceDataConfig, "near_duplicate", [0.0, -0.1, 1.1, float("nan")]),
        (PreferenceDataConfig, "min_best_score", [float("nan"), float("inf"), "good"]),
        (PreferenceDataConfig, "keep_refusals", ["perhaps"]),
        (PreferenceDataConfig, "pipeline", [3]),
        (PreferenceDataConfig, "prices", [{"writer": {"prompt": -1, "completion": 1}}, {"writer": {"prompt": 1}}]),
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
    nvidias = {
        "ttc_step_name",
        "exhaustive_pairs",
        "min_score_diff",
        "max_pairs_per_turn",
        "reward_from_score_diff",
        "require_multiple_candidates",
    }
    assert SharedDPOTrajectoryBuilderConfig().model_dump(include=nvidias) == {
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
    config = _recipe(
        n_subtopics=3,
        n_questions=4,
        n_responses=5,
        responses="independent",
        seed=6,
        keep_truncated=True,
        keep_refusals=True,
        max_top_ups=7,
        near_duplicate=0.9,
        min_best_score=3,
        sampling={
            "questions": {"temperature": 0, "top_p": 0.5, "max_tokens": 100, "seed": 8},
            "responses": {"temperature": [0.2, 1], "extra_body": {"top_k": 3}},
        },
    )
    assert config.input_kind is InputKind.AUTO
    assert isinstance(config, RecipeSettings)
    assert (config.responses, config.sampling.of(StepName.SUBTOPICS)) == (ResponseMode.INDEPENDENT, StepSampling())
    assert config.sampling.questions == StepSampling(temperature=0.0, top_p=0.5, max_tokens=100, seed=8)
    assert config.sampling.responses == StepSampling(temperature=[0.2, 1.0], extra_body={"top_k": 3})


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"rewards": {}}, "sampling has no 'rewards'; its keys are questions, responses, subtopics"),
        ({"questions": {"temprature": 1}}, "has no 'temprature'; did you mean 'temperature'"),
        ({"questions": {"top_p": 0}}, "top_p is 0: "),
        ({"questions": {"max_tokens": 0}}, "max_tokens is 0: "),
        ({"questions": {"temperature": float("nan")}}, "temperature"),
        ({"questions": {"temperature": ["hot"]}}, "temperature"),
    ],
)
def test_impossible_sampling_is_refused_in_words(sampling: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        _recipe(sampling=sampling)


# Which models.


@pytest.mark.parametrize(
    ("given", "models", "use"),
    [
        ("w", {"w": 1.0}, Spread.ROUND_ROBIN),
        (["a", "b"], {"a": 1.0, "b": 1.0}, Spread.ROUND_ROBIN),
        ({"models": "w"}, {"w": 1.0}, Spread.ROUND_ROBIN),
        ({"models": ["a", "b"], "use": "all"}, {"a": 1.0, "b": 1.0}, Spread.ALL),
        ({"models": {"a": 1, "b": 3}}, {"a": 1.0, "b": 3.0}, Spread.WEIGHTED),
        ({"models": {"a": 1, "b": 3}, "use": "round_robin"}, {"a": 1.0, "b": 3.0}, Spread.ROUND_ROBIN),
    ],
)
def test_the_models_of_a_step_can_be_given_in_short(given: object, models: dict[str, float], use: Spread) -> None:
    config = _recipe(writer_llm="w", responder_llm=given)
    assert config.responder_llm is not None
    assert (config.responder_llm.models, config.responder_llm.use) == (models, use)
    assert set(llms_in(config)) == {"w", "r", *models}


def test_what_is_read_from_a_dump_is_what_was_dumped() -> None:
    config = _recipe(writer_llm={"models": {"a": 1, "b": 3}})
    assert ModelPoolConfig.model_validate(config.writer_llm.model_dump()) == config.writer_llm
    assert ModelPoolConfig.model_validate(config.writer_llm) == config.writer_llm


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "expected the name of an llm or a list of such names, got []"),
        ({"models": {}}, "models must name llms, each with a weight above 0, got {}"),
        ({"models": {"a": 0}}, "models must name llms, each with a weight above 0, got {'a': 0.0}"),
        ({"models": {"a": -1}}, "each with a weight above 0"),
        ({"models": {"a": float("inf")}}, "each with a weight above 0"),
        ({"models": {"a": float("nan")}}, "each with a weight above 0"),
        ({"large": 1, "small": 3}, "ModelPoolConfig has no 'large'; its keys are models, use"),
        ({"models": ["a"], "use": "some"}, "use is 'some': "),
        ({"use": "all"}, "models: Field required"),
        (3, "3"),
    ],
)
def test_models_that_cannot_be_asked_are_refused_in_words(given: object, said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        _recipe(responder_llm=given)


@pytest.mark.parametrize("given", [[["a"]], [1], [None], [""], {"models": [["a"]]}])
def test_names_that_are_none_are_refused_in_words(given: object) -> None:
    with pytest.raises(ValidationError, match="expected the name of an llm"):
        _recipe(writer_llm=given)


def test_all_is_for_the_models_that_answer() -> None:
    everyone = {"models": ["a", "b"], "use": "all"}
    assert _recipe(writer_llm=everyone).writer_llm.use is Spread.ALL
    assert _recipe(responder_llm=everyone).responder_llm is not None
    with pytest.raises(ValidationError, match=r"writer_llm\.use is 'all', .*: set responder_llm\.use"):
        _recipe(writer_llm=everyone, responder_llm="b")


# What scores.


def test_a_reward_llm_is_short_for_a_scorer() -> None:
    scorer = _recipe(reward={"helpfulness": 2.0}).scorer_config()
    assert scorer == RewardModelConfig(kind="reward_model", llm="r", weights={"helpfulness": 2.0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reward_llm": None}, "what scores the responses? Set one of reward_llm and scorer"),
        ({"scorer": {"kind": "pooling", "llm": "p"}}, "what scores the responses? Set one of reward_llm and scorer"),
        (
            {"reward_llm": None, "scorer": {"kind": "pooling", "llm": "p"}, "reward": "helpfulness"},
            "`reward` goes with reward_llm; with `scorer` set the weights there",
        ),
        ({"reward": "mine"}, "unknown reward weights 'mine'"),
        ({"reward": {}}, "with such weights every score would be 0"),
        ({"reward_llm": None, "scorer": {"kind": "oracle"}}, "'oracle'"),
        ({"reward_llm": None, "scorer": {"kind": "pooling", "llm": "p", "lm": 1}}, "PoolingConfig has no 'lm'"),
    ],
)
def test_exactly_one_thing_scores(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        _recipe(**given)


def test_a_reward_llm_can_be_replicas_of_one() -> None:
    assert _recipe(reward_llm=["r", "s"]).scorer_config().llm == ["r", "s"]  # type: ignore[union-attr]
    assert set(llms_in(_recipe(reward_llm=["r", "s"]))) == {"w", "r", "s"}


@pytest.mark.parametrize("llms", [{"writer_llm": ["a", "b", "a"]}, {"reward_llm": ["a", "a"]}])
def test_a_model_is_named_once(llms: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="'a' is named more than once; `limits` says how much"):
        _recipe(**llms)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temperature": -1}, "greater than or equal to 0"),
        ({"temperature": [0.1, -1]}, "greater than or equal to 0"),
        ({"temperature": []}, "at least 1 item"),
        ({"extra_body": {"stream": True}}, "'stream' cannot be set here"),
        ({"extra_body": {"n": 2}}, "'n' cannot be set here"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        _recipe(sampling={"responses": given})


@pytest.mark.parametrize("limit", ["requests_per_minute", "max_wait_seconds"])
def test_a_limit_is_finite(limit: str) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        _recipe(limits={"w": {limit: float("inf")}})


def test_the_llms_of_a_scorer_are_used_too() -> None:
    members = {"one": {"kind": "pooling", "llm": ["a", "b"]}, "two": {"kind": "rating_judge", "llm": "c"}}
    config = _recipe(reward_llm=None, scorer={"kind": "ensemble", "members": members}, limits={"c": {}}, prices={})
    assert isinstance(config.scorer_config(), EnsembleConfig)
    assert set(llms_in(config)) == {"w", "a", "b", "c"}


def test_nat_loads_all_that_can_be_said_of_a_recipe() -> None:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    demo = {"_type": "dpo_demo", "model_name": "demo/stdlib-writer"}
    workflow = {
        "_type": "preference_data",
        "writer_llm": ["a", "b"],
        "responder_llm": {"models": {"a": 1, "b": 3}, "use": "weighted"},
        "scorer": {"kind": "ensemble", "members": {n: {"kind": "pooling", "llm": n} for n in "cd"}},
        "responses": "independent",
        "sampling": {"responses": {"temperature": [0.2, 0.9]}},
        "limits": {"a": {"requests_per_minute": 40}},
        "prices": {"a": {"prompt": 1, "completion": 2}},
        "pipeline": "package.module.function",
    }
    config = validate_schema({"llms": dict.fromkeys("abcd", demo), "workflow": workflow}, Config)
    assert isinstance(config.workflow, PreferenceDataConfig)
    assert config.workflow.writer_llm.models == {"a": 1.0, "b": 1.0}
    assert config.workflow.prices["a"].completion == 2.0


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("reward_llm", None, "what scores the responses? Set one of reward_llm and scorer"),
        ("writer_llm", [], "expected the name of an llm"),
        ("limits", {"x": {}}, "limits name 'x', which this workflow does not use; it uses r, w"),
        ("n_responses", 1, "n_responses is 1: "),
    ],
)
def test_nat_says_what_is_wrong_in_words(key: str, value: object, said: str) -> None:
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    workflow = {"_type": "preference_data", "writer_llm": "w", "reward_llm": "r", key: value}
    with pytest.raises(Exception, match=re.escape(said)):
        validate_schema({"workflow": workflow}, Config)


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


def test_prices_are_those_of_the_models_that_are_used() -> None:
    price = {"prompt": 1, "completion": 2.5}
    assert _recipe(prices={"r": price}).prices["r"].completion == 2.5
    with pytest.raises(ValidationError, match="prices name 'x', which this workflow does not use; it uses r, w"):
        _recipe(prices={"x": price})


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


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("strategy", ["best", 3, "best_vs_best"]),
        ("seed", ["x", None]),
        ("max_score_diff", [0.0, -1.0, float("inf")]),
        ("min_chosen_score", [float("nan"), "good"]),
        ("min_best_score", [float("inf")]),
        ("min_rejected_score", [float("nan")]),
        ("min_rejected_length", [0, 1.5]),
        ("min_agreement", [0.0, 1.1, float("nan")]),
        ("max_length_ratio", [0.9, float("inf")]),
        ("length_penalty", [-0.1, float("nan"), 1e7, None]),
        ("near_duplicate", [0.0, 1.1]),
        ("pair_flawed", ["perhaps"]),
        ("drop_contradictions", ["perhaps"]),
        ("max_prompts_per_chosen", [0, 1.5]),
        ("min_margin_quantile", [0.0, 1.0, float("nan")]),
        ("length_balance", [0.0, 1.0]),
        ("decontaminate_against", ["absent.jsonl", "."]),
        ("decontaminate_ngram", [0, None]),
    ],
)
def test_an_impossible_rule_of_pairing_is_refused(field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValidationError, match=rf"dpo_pipeline_traj_builder\.{field} is "):
            DPOTrajectoryBuilderConfig.model_validate({field: value})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"strategy": "adjacent", "exhaustive_pairs": True},
            "exhaustive_pairs: true is 'exhaustive', but strategy is 'adjacent': keep one of them",
        ),
        (
            {"strategy": "exhaustive", "exhaustive_pairs": False},
            "exhaustive_pairs: false is 'best_vs_worst', but strategy is 'exhaustive': keep one of them",
        ),
        ({"min_score_diff": 2.0, "max_score_diff": 1.0}, "max_score_diff is 1.0, below min_score_diff, which is 2.0"),
    ],
)
def test_rules_of_pairing_that_contradict_each_other_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        DPOTrajectoryBuilderConfig.model_validate(values)


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        ({}, Strategy.EXHAUSTIVE),
        ({"exhaustive_pairs": False}, Strategy.BEST_VS_WORST),
        ({"strategy": "adjacent"}, Strategy.ADJACENT),
        ({"strategy": "exhaustive", "exhaustive_pairs": True}, Strategy.EXHAUSTIVE),
        ({"strategy": "best_vs_worst", "exhaustive_pairs": False}, Strategy.BEST_VS_WORST),
        ({"strategy": "best_vs_worst"}, Strategy.BEST_VS_WORST),
    ],
)
def test_a_strategy_takes_the_place_of_exhaustive_pairs(values: dict[str, Any], strategy: Strategy) -> None:
    assert DPOTrajectoryBuilderConfig.model_validate(values).pairing_rules().applied_strategy is strategy
