import asyncio
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.config import Config
from nat.data_models.evaluate_runtime import EvaluationRunConfig, EvaluationRunOutput
from nat.data_models.evaluator import EvalInputItem
from nat.data_models.finetuning import DPOItem, FinetuneConfig, FinetuneRunConfig, Trajectory
from nat.data_models.intermediate_step import IntermediateStep
from nat.runtime.loader import load_config
from nat.utils.data_models.schema_validator import validate_schema

from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError, InputError
from nat_dpo_pipeline.plugin.finetuning import trajectory_builder
from nat_dpo_pipeline.plugin.finetuning.trajectory_builder import DPOTrajectoryBuilder, collect, evaluation_config
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.report.summary import CollectionReport

Maker = Callable[..., DPOTrajectoryBuilder]
Evaluations = Callable[..., EvaluationRunOutput]
Items = Callable[..., EvalInputItem]
Steps = Callable[..., list[IntermediateStep]]
Step = Callable[..., IntermediateStep]

OURS = "nat_dpo_pipeline.plugin.finetuning.trajectory_builder"
SHARED_KEYS = {
    "dpo_type",
    "score_diff",
    "example_id",
    "turn_id",
    "chosen_score",
    "rejected_score",
    "chosen_index",
    "rejected_index",
}


async def _run(
    builder: DPOTrajectoryBuilder, run_config: FinetuneConfig, run_id: str = "run"
) -> tuple[list[list[Trajectory]], CollectionReport]:
    await builder.initialize(run_config)
    await builder.start_run(run_id)
    collection = await builder.finalize(run_id)
    assert collection.run_id == run_id
    return collection.trajectories, builder.reports[run_id]


def _scores(trajectories: list[Trajectory]) -> list[tuple[float, float]]:
    metadata = [trajectory.metadata or {} for trajectory in trajectories]
    return [(item["chosen_score"], item["rejected_score"]) for item in metadata]


def _prompts(trajectories: list[Trajectory]) -> list[object]:
    items = [item for trajectory in trajectories for item in trajectory.episode]
    return [item.prompt for item in items if isinstance(item, DPOItem)]


async def test_candidates_of_a_turn_become_pairs_largest_difference_first(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 4.0, 2.0]}))
    ((*trajectories,),), report = await _run(builder, run_config)
    assert _scores(trajectories) == [(4.0, 1.0), (4.0, 2.0), (2.0, 1.0)]
    assert [trajectory.reward for trajectory in trajectories] == [3.0, 2.0, 1.0]
    assert (report.examples, report.candidates, report.turns, report.pairs) == (1, 3, 1, 3)
    assert report.problems == ()


async def test_more_pairs_than_memory_should_hold_are_told_with_the_way_out(
    make_builder: Maker,
    evaluation_of: Evaluations,
    run_config: FinetuneConfig,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for most, told in ((3, 0), (2, 1)):
        monkeypatch.setattr(trajectory_builder, "MANY_PAIRS", most)
        with caplog.at_level(logging.WARNING, OURS):
            await _run(make_builder(evaluation_of({"a": [1.0, 4.0, 2.0]})), run_config)
        assert len(caplog.messages) == told
    assert "holds 3 pairs in memory" in caplog.text
    assert "nat dpo pairs" in caplog.text


async def test_exhaustive_metadata_has_nvidias_keys(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    ((trajectory,),), _ = await _run(make_builder(evaluation_of({"a": [1.0, 4.0]})), run_config)
    assert trajectory.metadata is not None
    assert set(trajectory.metadata) == SHARED_KEYS | {"chosen_raw_metadata", "rejected_raw_metadata"}
    assert {name: trajectory.metadata[name] for name in SHARED_KEYS} == {
        "dpo_type": "preference_pair",
        "score_diff": 3.0,
        "example_id": "example-0",
        "turn_id": "a",
        "chosen_score": 4.0,
        "rejected_score": 1.0,
        "chosen_index": 1,
        "rejected_index": 0,
    }


async def test_best_against_worst_metadata_has_nvidias_keys(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 4.0, 2.0]}), exhaustive_pairs=False)
    ((trajectory,),), report = await _run(builder, run_config)
    assert trajectory.metadata is not None
    assert set(trajectory.metadata) == SHARED_KEYS | {"num_candidates"}
    assert trajectory.metadata["num_candidates"] == 3
    assert _scores([trajectory]) == [(4.0, 1.0)]
    assert report.skipped == {"not_best_vs_worst": 2}


@pytest.mark.parametrize(("from_diff", "reward"), [(True, 3.0), (False, 4.0)])
async def test_reward(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig, from_diff: bool, reward: float
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 4.0]}), reward_from_score_diff=from_diff)
    ((trajectory,),), _ = await _run(builder, run_config)
    assert trajectory.reward == reward


async def test_items_without_an_id_are_told_apart_by_position(
    make_builder: Maker, make_evaluation: Evaluations, make_item: Items, make_steps: Steps, run_config: FinetuneConfig
) -> None:
    items = [make_item(make_steps({"turn": [score, 0.0]}), name=name) for score, name in ((1.0, ""), (2.0, None))]
    groups, report = await _run(make_builder(make_evaluation(*items)), run_config)
    assert [[(item.metadata or {})["example_id"] for item in group] for group in groups] == [["row-0"], ["row-1"]]
    assert [_scores(group) for group in groups] == [[(1.0, 0.0)], [(2.0, 0.0)]]
    assert report.examples == 2


async def test_ids_may_be_numbers(
    make_builder: Maker, make_evaluation: Evaluations, make_item: Items, make_steps: Steps, run_config: FinetuneConfig
) -> None:
    items = [make_item(make_steps({"turn": [1.0, 0.0]}), name=name) for name in (0, 7)]
    groups, _ = await _run(make_builder(make_evaluation(*items)), run_config)
    assert [(group[0].metadata or {})["example_id"] for group in groups] == ["0", "7"]


async def test_one_turn_id_in_two_examples_is_two_turns(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    groups, report = await _run(make_builder(evaluation_of({"a": [1.0, 2.0]}, {"a": [5.0, 9.0]})), run_config)
    assert [_scores(group) for group in groups] == [[(2.0, 1.0)], [(9.0, 5.0)]]
    assert report.turns == 2


async def test_ties_nan_and_identical_texts_never_pair_and_are_counted(
    make_builder: Maker,
    make_evaluation: Evaluations,
    make_item: Items,
    make_step: Step,
    run_config: FinetuneConfig,
) -> None:
    steps = [
        make_step(2.0, index=0),
        make_step(2.0, index=1),
        make_step(1.0, index=2, response="response 0"),
        make_step(math.nan, index=3),
    ]
    ((*trajectories,),), report = await _run(make_builder(make_evaluation(make_item(steps))), run_config)
    assert _scores(trajectories) == [(2.0, 1.0)]
    assert report.skipped == {"tie": 1, "identical_text": 1}
    assert report.refused == {"score_not_finite": 1}
    assert report.candidates == 3


async def test_a_turn_whose_prompts_differ_is_split_and_counted(
    make_builder: Maker, make_evaluation: Evaluations, make_item: Items, make_step: Step, run_config: FinetuneConfig
) -> None:
    steps = [
        make_step(score, index=index, prompt=prompt)
        for index, (score, prompt) in enumerate([(1.0, "Why?"), (2.0, "How?"), (3.0, "Why?"), (4.0, "How?")])
    ]
    ((*trajectories,),), report = await _run(make_builder(make_evaluation(make_item(steps))), run_config)
    assert list(zip(_prompts(trajectories), _scores(trajectories), strict=True)) == [
        ("Why?", (3.0, 1.0)),
        ("How?", (4.0, 2.0)),
    ]
    assert (report.turns, report.turns_split) == (2, 1)


@pytest.mark.parametrize(("required", "counted"), [(True, 1), (False, 0)])
async def test_a_turn_with_one_candidate_has_no_pair_and_is_counted_when_several_are_required(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig, required: bool, counted: int
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0], "b": [1.0, 2.0]}), require_multiple_candidates=required)
    ((*trajectories,),), report = await _run(builder, run_config)
    assert len(trajectories) == 1
    assert (report.turns, report.turns_with_one_candidate) == (2, counted)


@pytest.mark.parametrize(
    ("settings", "scores", "skipped"),
    [
        ({"min_score_diff": 2.0}, [(4.0, 1.0), (4.0, 2.0)], {"below_min_score_diff": 1}),
        ({"max_pairs_per_turn": 1}, [(4.0, 1.0)], {"over_max_pairs_per_turn": 2}),
    ],
)
async def test_the_rules_of_the_configuration_are_kept(
    make_builder: Maker,
    evaluation_of: Evaluations,
    run_config: FinetuneConfig,
    settings: dict[str, object],
    scores: list[tuple[float, float]],
    skipped: dict[str, int],
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 4.0, 2.0]}), **settings)
    ((*trajectories,),), report = await _run(builder, run_config)
    assert _scores(trajectories) == scores
    assert report.skipped == skipped


@given(
    examples=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 3).map(float), max_size=5), max_size=3),
        max_size=3,
    ),
    exhaustive=st.booleans(),
    least=st.sampled_from([0.0, 1.0, 2.0]),
    limit=st.none() | st.integers(1, 3),
)
def test_every_two_candidates_of_a_turn_are_a_pair_or_counted(
    evaluation_of: Evaluations,
    examples: list[dict[str, list[float]]],
    exhaustive: bool,
    least: float,
    limit: int | None,
) -> None:
    evaluation = evaluation_of(*examples)
    config = DPOTrajectoryBuilderConfig(exhaustive_pairs=exhaustive, min_score_diff=least, max_pairs_per_turn=limit)
    report = collect(evaluation, config).report(examples=1)
    sizes = [len(scores) for turns in examples for scores in turns.values()]
    assert report.candidates == sum(sizes)
    assert report.pairs + report.skipped.total() == sum(size * (size - 1) // 2 for size in sizes)


async def test_a_wrong_step_name_names_the_steps_that_are_there(
    make_builder: Maker,
    evaluation_of: Evaluations,
    run_config: FinetuneConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0]}), ttc_step_name="moves")
    with caplog.at_level(logging.INFO, OURS):
        groups, report = await _run(builder, run_config)
    assert groups == []
    (problem,) = report.problems
    assert problem == "no step is called 'moves', but there are 'dpo_candidate_move': set ttc_step_name"
    assert problem in caplog.text


async def test_a_failed_evaluation_is_one_line_and_its_run_can_be_started_again(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    failure = RuntimeError("the server\n  is gone")
    builder = make_builder(failure, evaluation_of({"a": [1.0, 2.0]}))
    await builder.initialize(run_config)
    await builder.start_run("run")
    with pytest.raises(CollectionError) as raised:
        await builder.finalize("run")
    assert str(raised.value) == "the evaluation of run 'run' failed: the server is gone"
    assert raised.value.__cause__ is failure
    assert builder.evaluation_runs == {}
    await builder.start_run("run")
    assert len((await builder.finalize("run")).trajectories) == 1


@pytest.mark.parametrize("run_id", ["../run", "a/b", "a\0b", "é" * 200])
async def test_a_run_id_that_leaves_the_folder_is_refused_before_the_evaluation(
    make_builder: Maker, run_config: FinetuneConfig, run_id: str
) -> None:
    builder = make_builder()
    await builder.initialize(run_config)
    with pytest.raises(ConfigurationError, match="is not the name of a file"):
        await builder.start_run(run_id)
    assert builder.evaluation_runs == {}


async def test_an_error_without_words_is_named_by_its_type(make_builder: Maker, run_config: FinetuneConfig) -> None:
    builder = make_builder(TimeoutError())
    await builder.initialize(run_config)
    await builder.start_run("run")
    with pytest.raises(CollectionError, match=r"failed: TimeoutError$"):
        await builder.finalize("run")


class EndlessBuilder(DPOTrajectoryBuilder):
    async def run_eval(self) -> EvaluationRunOutput:
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")


async def test_a_run_under_way_cannot_be_started_twice(run_config: FinetuneConfig) -> None:
    builder = EndlessBuilder(DPOTrajectoryBuilderConfig())
    await builder.initialize(run_config)
    await builder.start_run("run")
    with pytest.raises(ValueError, match="'run' is in progress already"):
        await builder.start_run("run")
    await builder.start_run("another")
    for task in builder.evaluation_runs.values():
        task.cancel()


async def test_a_canceled_evaluation_is_not_taken_for_a_failed_one(run_config: FinetuneConfig) -> None:
    builder = EndlessBuilder(DPOTrajectoryBuilderConfig())
    await builder.initialize(run_config)
    await builder.start_run("run")
    builder.evaluation_runs["run"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await builder.finalize("run")
    assert builder.evaluation_runs == {}


async def test_only_what_was_started_can_be_finalized(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0]}))
    await _run(builder, run_config)
    for run_id in ("unknown", "run"):
        with pytest.raises(ValueError, match=f"'{run_id}' was not started"):
            await builder.finalize(run_id)


async def test_an_interrupted_evaluation_is_warned_about_with_numbers(
    make_builder: Maker,
    evaluation_of: Evaluations,
    run_config: FinetuneConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    evaluation = evaluation_of({"a": [1.0, 2.0]}, {}, {}, interrupted=True)
    with caplog.at_level(logging.WARNING, OURS):
        _, report = await _run(make_builder(evaluation), run_config)
    assert caplog.messages == ["run run was interrupted: 2 of 3 examples delivered no candidates"]
    assert (report.interrupted_runs, report.examples_without_candidates) == (1, 2)


async def test_examples_without_candidates_are_warned_about(
    make_builder: Maker,
    evaluation_of: Evaluations,
    run_config: FinetuneConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, OURS):
        await _run(make_builder(evaluation_of({"a": [1.0, 2.0]}, {})), run_config)
    assert caplog.messages == ["run run lost 1 of 2 examples: they delivered no candidates"]


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "run run collected no candidates from 0 examples"),
        ([{}, {}], "run run collected no candidates from 2 examples"),
        ([{"a": [1.0, 1.0]}], "run run collected 2 candidates but no pair"),
    ],
)
async def test_a_run_without_pairs_is_warned_about(
    make_builder: Maker,
    evaluation_of: Evaluations,
    run_config: FinetuneConfig,
    caplog: pytest.LogCaptureFixture,
    examples: list[dict[str, list[float]]],
    message: str,
) -> None:
    with caplog.at_level(logging.WARNING, OURS):
        groups, _ = await _run(make_builder(evaluation_of(*examples)), run_config)
    assert groups == []
    assert caplog.messages == [message]


async def test_a_good_run_is_told_in_lines_and_without_warnings(
    make_builder: Maker,
    evaluation_of: Evaluations,
    run_config: FinetuneConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, OURS):
        await _run(make_builder(evaluation_of({"a": [1.0, 2.0, 2.0]})), run_config)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert [line.split(maxsplit=1) for line in record.getMessage().splitlines()[1:]] == [
        ["candidates", "3"],
        ["turns", "1"],
        ["pairs", "2"],
        ["skipped", "pairs         1 tie"],
    ]


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_what_failed_is_kept_in_a_file_with_reasons(
    make_builder: Maker, make_evaluation: Evaluations, make_item: Items, make_step: Step, run_config: FinetuneConfig
) -> None:
    steps = [make_step(1.0), make_step(None, index=1), make_step(2.0, turn_id=None, index=2)]
    await _run(make_builder(make_evaluation(make_item(steps, name="row"))), run_config)
    assert _lines(run_config.output_dir / "failures_run.jsonl") == [
        {"example_id": "row", "step_uuid": steps[1].UUID, "reason": "missing_score"},
        {"example_id": "row", "step_uuid": steps[2].UUID, "reason": "missing_turn_id"},
    ]


async def test_failures_of_the_workflow_are_read_from_its_summary(
    make_builder: Maker, make_evaluation: Evaluations, make_item: Items, make_steps: Steps, run_config: FinetuneConfig
) -> None:
    failure = {"step": "rewards", "subject": "Why?", "reason": "model_error", "detail": "gone", "reply": None}
    summary = {
        "kind": "nat_dpo_pipeline.summary/1",
        "questions": 2,
        "skipped": {"rewards": {"model_error": 1}},
        "tokens": [],
        "failures": [failure],
        "stopped": "the credit is spent",
    }
    items = [make_item(make_steps({"a": [1.0, 2.0]}), name=f"row-{n}", output=json.dumps(summary)) for n in range(2)]
    _, report = await _run(make_builder(make_evaluation(*items)), run_config)
    assert report.generated["questions"] == 4
    assert report.failed == {"rewards": {"model_error": 2}}
    assert report.problems == ("the credit is spent",)
    assert _lines(run_config.output_dir / "failures_run.jsonl") == [
        {"example_id": "row-0", **failure},
        {"example_id": "row-1", **failure},
    ]


async def test_without_failures_there_is_no_file_of_them(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    await _run(make_builder(evaluation_of({"a": [1.0, 2.0]})), run_config)
    assert not list(run_config.output_dir.glob("failures_*"))


async def test_failures_that_cannot_be_written_do_not_cost_the_pairs(
    make_builder: Maker,
    make_evaluation: Evaluations,
    make_item: Items,
    make_step: Step,
    run_config: FinetuneConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_config.output_dir.write_text("in the way")
    steps = [make_step(1.0), make_step(2.0, index=1), make_step(None, index=2)]
    groups, _ = await _run(make_builder(make_evaluation(make_item(steps))), run_config)
    assert len(groups) == 1
    assert "1 failures could not be written" in caplog.text


async def test_progress_is_one_json_line(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig, tmp_path: Path
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0, 2.0]}), ttc_step_name="dpo_candidate_move")
    await _run(builder, run_config)
    builder.log_progress("run", {"epoch": 1})
    builder.log_progress("run", {"epoch": 2})
    builder.log_progress("unknown", {}, output_dir=str(tmp_path / "elsewhere"))
    first, second = _lines(run_config.output_dir / "dpo_trajectory_builder_run.jsonl")
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert first["run_id"] == "run"
    assert isinstance(first["collected"], dict)
    assert first["collected"]["pairs"] == 2
    assert first["skipped"] == {"pairs": {"tie": 1}}
    assert isinstance(first["config"], dict)
    assert first["config"]["ttc_step_name"] == "dpo_candidate_move"
    (unknown,) = _lines(tmp_path / "elsewhere" / "dpo_trajectory_builder_unknown.jsonl")
    assert unknown["collected"] is None


CONFIG: dict[str, Any] = {
    "workflow": {"_type": "scored_candidates"},
    "eval": {
        "general": {
            "dataset": {"_type": "custom", "function": "nat_dpo_pipeline.plugin.datasets.load_rows", "file_path": "x"}
        }
    },
    "trajectory_builders": {"pairs": {"_type": "dpo_traj_builder"}},
    "trainers": {"trainer": {"_type": "dpo_trainer"}},
    "trainer_adapters": {"dataset": {"_type": "dataset_trainer_adapter", "output_dir": "out"}},
    "finetuning": {
        "enabled": True,
        "trainer": "trainer",
        "trajectory_builder": "pairs",
        "trainer_adapter": "dataset",
    },
}


def _finetune_config(tmp_path: Path, **run: Any) -> FinetuneConfig:
    """As `nat finetune` makes it: the configuration holds the run, and the run the configuration."""
    path = tmp_path / "config.json"
    general = {"output_dir": str(tmp_path / "eval"), **CONFIG["eval"]["general"]}
    path.write_text(json.dumps({**CONFIG, "eval": {"general": general}}))
    config = load_config(path)
    config.finetuning.output_dir = tmp_path / "run"
    config.finetuning.run_configuration = FinetuneRunConfig(config_file=config, **run)
    return config.finetuning


def test_a_configuration_that_contains_itself_is_cut(tmp_path: Path) -> None:
    finetuning = _finetune_config(
        tmp_path,
        dataset=tmp_path / "rows.jsonl",
        override=(("eval.general.max_concurrency", "1"),),
        endpoint="http://x",
    )
    run = finetuning.run_configuration
    assert run is not None
    original = run.config_file
    assert isinstance(original, Config)
    assert original.finetuning.run_configuration is run

    made = evaluation_config(finetuning)
    assert isinstance(made.config_file, Config)
    assert made.config_file.finetuning == FinetuneConfig()
    left = made.config_file
    assert (left.trainers, left.trainer_adapters, left.trajectory_builders) == ({}, {}, {})
    assert made.config_file.workflow == original.workflow
    assert made.dataset == str(tmp_path / "rows.jsonl")
    assert made.override == ()
    assert (made.endpoint, made.endpoint_timeout, made.result_json_path) == ("http://x", 300, "$")
    assert "run_configuration=None" in repr(made), "NAT logs it"
    assert original.trainers, "the configuration of the run itself must stay as it is"


def test_a_configuration_file_keeps_its_overrides(tmp_path: Path) -> None:
    run = FinetuneRunConfig(config_file=tmp_path / "config.yml", override=(("a", "b"),))
    config = FinetuneConfig()
    config.run_configuration = run
    assert evaluation_config(config) == EvaluationRunConfig(config_file=tmp_path / "config.yml", override=(("a", "b"),))


def test_without_a_run_there_is_nothing_to_evaluate() -> None:
    with pytest.raises(ConfigurationError, match="nat finetune"):
        evaluation_config(FinetuneConfig())


async def test_a_real_evaluation_delivers_every_candidate(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Why {n}?", "candidates": [{"response": f"answer {m}", "score": m * n} for m in range(3)]}
        for n in range(4)
    ]
    dataset = tmp_path / "rows.jsonl"
    dataset.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    builder = DPOTrajectoryBuilder(DPOTrajectoryBuilderConfig())
    groups, report = await _run(builder, _finetune_config(tmp_path, dataset=dataset))
    assert (report.examples, report.candidates, report.turns, report.interrupted_runs) == (5, 12, 4, 0)
    assert [len(group) for group in groups] == [3, 3, 3]
    assert report.skipped == {"tie": 3}
    assert report.failed == {"input": {"malformed_input": 1}}
    assert report.examples_without_candidates == 1


async def test_a_real_evaluation_that_fails_says_why(tmp_path: Path) -> None:
    builder = DPOTrajectoryBuilder(DPOTrajectoryBuilderConfig())
    with pytest.raises(CollectionError, match="cannot read the dataset") as raised:
        await _run(builder, _finetune_config(tmp_path, dataset=tmp_path / "absent.jsonl"))
    assert "\n" not in str(raised.value)


async def test_an_item_that_fails_leaves_its_reason_in_the_report(tmp_path: Path) -> None:
    finetuning = _finetune_config(tmp_path, dataset=tmp_path / "topics.json")
    (tmp_path / "topics.json").write_text(json.dumps([{"id": "a", "question": "Heaps"}]))
    run = finetuning.run_configuration
    assert run is not None
    llm = {"_type": "openai", "model_name": "m", "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}
    source = {
        "llms": {"lost": llm},
        "workflow": {"_type": "preference_data", "writer_llm": "lost", "reward_llm": "lost"},
        "eval": {"general": {"output_dir": str(tmp_path / "eval"), "dataset": {"_type": "json", "file_path": "x"}}},
    }
    run.config_file = validate_schema(source, Config)
    groups, report = await _run(DPOTrajectoryBuilder(DPOTrajectoryBuilderConfig()), finetuning)
    assert groups == []
    assert report.interrupted_runs == 1
    (problem,) = report.problems
    assert problem.startswith("no candidate was made: model 'lost' (m at http://127.0.0.1:9/v1) cannot be reached")


async def test_an_endpoint_that_delivers_nothing_is_named(tmp_path: Path) -> None:
    finetuning = _finetune_config(tmp_path, endpoint="http://127.0.0.1:9/generate")
    run = finetuning.run_configuration
    assert run is not None
    (tmp_path / "rows.json").write_text('[{"id": 1, "question": "Why?"}]')
    source = {
        "workflow": {"_type": "scored_candidates"},
        "eval": {
            "general": {
                "output_dir": str(tmp_path / "eval"),
                "dataset": {"_type": "json", "file_path": str(tmp_path / "rows.json")},
            }
        },
    }
    run.config_file, run.dataset = validate_schema(source, Config), None
    _, report = await _run(DPOTrajectoryBuilder(DPOTrajectoryBuilderConfig()), finetuning)
    assert "the endpoint 'http://127.0.0.1:9/generate' delivered no candidates" in report.problems[0]


@pytest.mark.parametrize(
    ("settings", "scores", "skipped"),
    [
        ({"strategy": "best_vs_second"}, [(4.0, 2.0)], {"not_best_vs_second": 2}),
        ({"strategy": "adjacent"}, [(4.0, 2.0), (2.0, 1.0)], {"not_adjacent": 1}),
        ({"max_score_diff": 2.5}, [(4.0, 2.0), (2.0, 1.0)], {"over_max_score_diff": 1}),
        ({"min_best_score": 4.5}, None, {"below_min_best_score": 3}),
        ({"near_duplicate": 0.5}, None, {"near_duplicate": 3}),
        ({"min_margin_quantile": 0.5}, [(4.0, 1.0), (4.0, 2.0)], {"below_min_margin_quantile": 1}),
    ],
)
async def test_what_the_rules_leave_out_is_counted(
    make_builder: Maker,
    evaluation_of: Evaluations,
    run_config: FinetuneConfig,
    settings: dict[str, object],
    scores: list[tuple[float, float]] | None,
    skipped: dict[str, int],
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 4.0, 2.0]}), **settings)
    groups, report = await _run(builder, run_config)
    assert [_scores(group) for group in groups] == ([] if scores is None else [scores])
    assert report.skipped == skipped
    assert report.pairs == len(scores or ())


async def test_a_selection_is_made_over_all_examples_and_keeps_their_groups(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    evaluation = evaluation_of({"a": [1.0, 2.0], "b": [1.0, 5.0]}, {"c": [1.0, 1.5]}, {"d": [1.0, 9.0, 8.5]})
    groups, report = await _run(make_builder(evaluation, min_margin_quantile=0.5), run_config)
    assert [_scores(group) for group in groups] == [[(5.0, 1.0)], [(9.0, 1.0), (8.5, 1.0)]]
    assert _prompts(groups[0]) == ["What is b?"]
    assert (report.turns, report.pairs, report.skipped) == (4, 3, {"below_min_margin_quantile": 3})


async def test_metadata_of_a_strategy_have_the_keys_of_exhaustive_pairs_but_for_best_vs_worst(
    make_builder: Maker, evaluation_of: Evaluations, run_config: FinetuneConfig
) -> None:
    for strategy, more in (("best_vs_worst", {"num_candidates"}), ("adjacent", {"chosen_raw_metadata"})):
        ((trajectory, *_),), _ = await _run(
            make_builder(evaluation_of({"a": [1.0, 4.0]}), strategy=strategy), run_config
        )
        assert more <= set(trajectory.metadata or {})


async def test_an_evaluation_set_that_cannot_be_read_costs_no_evaluation(
    make_builder: Maker, run_config: FinetuneConfig, tmp_path: Path
) -> None:
    (tmp_path / "evaluation.jsonl").write_bytes(b"\xff")
    builder = make_builder(decontaminate_against=tmp_path / "evaluation.jsonl")
    await builder.initialize(run_config)
    with pytest.raises(InputError, match="cannot read the evaluation set"):
        await builder.start_run("run")
    assert builder.evaluation_runs == {}


@given(
    examples=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 3).map(float), max_size=5), max_size=3),
        max_size=3,
    ),
    strategy=st.sampled_from([None, *Strategy]),
    quantile=st.none() | st.floats(0.1, 0.9),
    contradictions=st.booleans(),
)
def test_every_two_candidates_are_a_pair_or_counted_also_when_selected(
    evaluation_of: Evaluations,
    examples: list[dict[str, list[float]]],
    strategy: Strategy | None,
    quantile: float | None,
    contradictions: bool,
) -> None:
    evaluation = evaluation_of(*examples)
    config = DPOTrajectoryBuilderConfig(
        strategy=strategy, min_margin_quantile=quantile, drop_contradictions=contradictions
    )
    report = collect(evaluation, config).report(examples=1)
    sizes = [len(scores) for turns in examples for scores in turns.values()]
    assert report.pairs + report.skipped.total() == sum(size * (size - 1) // 2 for size in sizes)
