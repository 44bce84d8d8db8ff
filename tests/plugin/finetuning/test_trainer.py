import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat.data_models.evaluate_runtime import EvaluationRunOutput
from nat.data_models.finetuning import (
    CurriculumLearningConfig,
    DPOItem,
    EpisodeItem,
    EpisodeItemRole,
    FinetuneConfig,
    TrainerAdapterConfig,
    TrainingJobRef,
    TrainingJobStatus,
    TrainingStatusEnum,
    Trajectory,
    TrajectoryBuilderConfig,
    TrajectoryCollection,
)
from nat.finetuning.interfaces.trainer_adapter import TrainerAdapter
from nat.finetuning.interfaces.trajectory_builder import TrajectoryBuilder

from nat_dpo_pipeline.core.messages import prompt_key
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import CollectionError, OutputError, TrainingError
from nat_dpo_pipeline.plugin.finetuning.dataset_adapter import DatasetTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning.submissions import SPLIT_KEY, pairs_of
from nat_dpo_pipeline.plugin.finetuning.trainer import DPOTrainer, by_example, split_by_prompt
from nat_dpo_pipeline.plugin.finetuning.trajectory_builder import DPOTrajectoryBuilder
from nat_dpo_pipeline.plugin.finetuning_config import (
    DatasetTrainerAdapterConfig,
    DPOTrainerConfig,
    DPOTrajectoryBuilderConfig,
)

Maker = Callable[..., DPOTrajectoryBuilder]
Evaluations = Callable[..., EvaluationRunOutput]

OURS = "nat_dpo_pipeline"


# ruff: noqa: ARG002 - NAT prescribes the arguments


class RemoteAdapter(TrainerAdapter):
    """A training service that keeps what it is given and ends the job with the status it is told."""

    def __init__(
        self, outcome: TrainingStatusEnum = TrainingStatusEnum.COMPLETED, refuses: Exception | None = None
    ) -> None:
        super().__init__(TrainerAdapterConfig())
        self.submitted: list[TrajectoryCollection] = []
        self.waited = 0
        self._outcome = outcome
        self._refuses = refuses

    async def is_healthy(self) -> bool:
        return True

    async def submit(self, trajectories: TrajectoryCollection) -> TrainingJobRef:
        if self._refuses is not None:
            raise self._refuses
        self.submitted.append(trajectories)
        return TrainingJobRef(run_id=trajectories.run_id, backend="remote", metadata={"job": 1})

    async def status(self, ref: TrainingJobRef) -> TrainingJobStatus:
        return TrainingJobStatus(run_id=ref.run_id, backend="remote", status=self._outcome, message="so it ended")

    async def wait_until_complete(self, ref: TrainingJobRef, poll_interval: float = 10.0) -> TrainingJobStatus:
        self.waited += 1
        return await self.status(ref)

    def log_progress(self, ref: TrainingJobRef, metrics: dict[str, Any], output_dir: str | None = None) -> None:
        raise AssertionError("the trainer has no reason to call this")


class ForeignBuilder(TrajectoryBuilder):
    """Somebody else's trajectory builder: it knows neither our reports nor our metadata."""

    def __init__(self, groups: list[list[Trajectory]]) -> None:
        super().__init__(TrajectoryBuilderConfig())
        self._groups = groups

    async def start_run(self, run_id: str, meta: dict[str, Any] | None = None) -> None:
        pass

    async def finalize(self, run_id: str, meta: dict[str, Any] | None = None) -> TrajectoryCollection:
        return TrajectoryCollection(trajectories=self._groups, run_id=run_id)

    def log_progress(self, run_id: str, metrics: dict[str, Any], output_dir: str | None = None) -> None:
        raise AssertionError("the trainer has no reason to call this")


async def _trainer(
    run_config: FinetuneConfig, builder: TrajectoryBuilder, adapter: TrainerAdapter, **settings: Any
) -> DPOTrainer:
    trainer = DPOTrainer(DPOTrainerConfig(**settings))
    await trainer.bind_components(builder, adapter)
    await trainer.initialize(run_config)
    return trainer


def _metrics(run_config: FinetuneConfig) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run_config.output_dir / "final_metrics.json").read_text())
    return metrics


def _dropped(run_config: FinetuneConfig) -> Counter[str]:
    return Counter(_metrics(run_config)["skipped"].get("trainer", {}))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _kept(run_config: FinetuneConfig) -> list[dict[str, Any]]:
    """What was rescued into collected_*.jsonl."""
    return [row for path in run_config.output_dir.glob("collected_*.jsonl") for row in _lines(path)]


def _submitted(adapter: RemoteAdapter) -> list[Trajectory]:
    (collection,) = adapter.submitted
    return [trajectory for group in collection.trajectories for trajectory in group]


def _texts(trajectories: Sequence[Trajectory]) -> list[tuple[str, str]]:
    items = [item for trajectory in trajectories for item in trajectory.episode if isinstance(item, DPOItem)]
    return [(item.chosen_response, item.rejected_response) for item in items]


def _trajectory(prompt: str, *chosen: str, example_id: str | None = "example") -> Trajectory:
    items = [DPOItem(prompt=prompt, chosen_response=text, rejected_response="bad") for text in chosen]
    metadata = None if example_id is None else {"example_id": example_id}
    return Trajectory(episode=items, reward=1.0, metadata=metadata)


async def test_runs_are_collected_and_submitted_once(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0]}), evaluation_of({"b": [1.0, 2.0], "c": [3.0, 3.0]}))
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, builder, adapter, num_runs=2)
    (status,) = await trainer.run(num_epochs=7)
    assert status.status is TrainingStatusEnum.COMPLETED
    assert adapter.waited == 1
    assert len(_submitted(adapter)) == 2
    (collection,) = adapter.submitted
    assert status.run_id == collection.run_id
    metrics = _metrics(run_config)
    assert (metrics["status"], metrics["message"]) == ("completed", "so it ended")
    assert (metrics["num_runs"], metrics["job"]) == (2, {"job": 1})
    assert (metrics["collected"]["turns"], metrics["collected"]["pairs"]) == (3, 2)
    assert metrics["skipped"]["pairs"] == {"tie": 1}
    assert _dropped(run_config) == Counter()
    assert (await trainer.get_metrics(status.run_id)).items() <= metrics.items()


async def test_each_run_is_a_line_of_progress(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0, 4.0]}), evaluation_of({"a": [1.0, 1.0]}))
    trainer = await _trainer(run_config, builder, RemoteAdapter(), num_runs=2)
    await trainer.run(1)
    first, second = _lines(run_config.output_dir / "data_collection_progress.jsonl")
    assert (first["run_number"], second["run_number"]) == (0, 1)
    assert first["run_id"] == second["run_id"]
    assert (first["num_trajectories"], first["avg_reward"]) == (3, 2.0)
    assert (first["min_reward"], first["max_reward"]) == (1.0, 3.0)
    assert (second["num_trajectories"], second["avg_reward"]) == (0, None)


async def test_progress_can_go_elsewhere(run_config: FinetuneConfig, tmp_path: Path, make_builder: Maker) -> None:
    trainer = await _trainer(run_config, make_builder(), RemoteAdapter())
    trainer.log_progress(3, {"mine": 1}, output_dir=str(tmp_path / "elsewhere"))
    (line,) = _lines(tmp_path / "elsewhere" / "data_collection_progress.jsonl")
    assert (line["run_number"], line["mine"]) == (3, 1)


@pytest.mark.parametrize(("deduplicates", "kept", "dropped"), [(True, 1, 1), (False, 2, 0)])
async def test_the_same_pair_from_two_runs_is_kept_once(
    run_config: FinetuneConfig,
    make_builder: Maker,
    evaluation_of: Evaluations,
    deduplicates: bool,
    kept: int,
    dropped: int,
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0]}), evaluation_of({"a": [1.0, 2.0]}))
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, builder, adapter, num_runs=2, deduplicate_pairs=deduplicates)
    await trainer.run(1)
    assert len(_submitted(adapter)) == kept
    assert _dropped(run_config) == Counter(duplicate_pairs=dropped)


async def _drawn(run_config: FinetuneConfig, builder: DPOTrajectoryBuilder, seed: int) -> list[tuple[str, str]]:
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, builder, adapter, max_pairs=5, seed=seed)
    await trainer.run(1)
    return _texts(_submitted(adapter))


async def test_max_pairs_draws_the_same_for_the_same_seed(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    evaluation = evaluation_of({"a": [float(score) for score in range(12)]})
    draws = [await _drawn(run_config, make_builder(evaluation), seed) for seed in (1, 1, 2)]
    assert [len(draw) for draw in draws] == [5, 5, 5]
    assert draws[0] == draws[1] != draws[2]
    assert _dropped(run_config) == Counter(over_max_pairs=61)


async def test_the_split_is_marked_by_prompt(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    builder = make_builder(evaluation_of({f"turn {n}": [1.0, 2.0, 3.0] for n in range(10)}))
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, builder, adapter, validation_fraction=0.2)
    await trainer.run(1)
    sides: dict[str, set[str]] = {}
    for trajectory in _submitted(adapter):
        (pair,) = pairs_of(trajectory)
        assert isinstance(pair.row.prompt, str)
        sides.setdefault(pair.row.prompt, set()).add((trajectory.metadata or {})[SPLIT_KEY])
    assert sorted(map(sorted, sides.values())) == [["train"]] * 8 + [["validation"]] * 2


@given(
    prompts=st.lists(st.text(max_size=3) | st.sampled_from(["Why?", " Why? ", "Why?\n"]), min_size=1),
    fraction=st.floats(0, 0.99),
    seed=st.integers(),
)
def test_a_prompt_is_on_one_side_only(prompts: list[str], fraction: float, seed: int) -> None:
    trajectories = [_trajectory(prompt, f"good {n}") for n, prompt in enumerate(prompts)]
    split_by_prompt([pair for one in trajectories for pair in pairs_of(one)], fraction, seed)
    sides: dict[str, set[str]] = {}
    for prompt, trajectory in zip(prompts, trajectories, strict=True):
        sides.setdefault(prompt_key(prompt), set()).add((trajectory.metadata or {})[SPLIT_KEY])
    assert all(len(side) == 1 for side in sides.values())
    found = set().union(*sides.values())
    assert SplitName.TRAIN in found
    assert (SplitName.VALIDATION in found) == (fraction > 0 and len(sides) > 1)


def test_marking_does_not_change_metadata_that_is_shared() -> None:
    shared = {"example_id": "e"}
    trajectory = _trajectory("Why?", "good")
    trajectory.metadata = shared
    (pair,) = split_by_prompt([*pairs_of(trajectory)], 0.0, 0)
    assert pair.side is SplitName.TRAIN
    assert shared == {"example_id": "e"}
    assert trajectory.metadata == {"example_id": "e", SPLIT_KEY: "train"}


def test_a_trajectory_of_several_pairs_is_taken_apart() -> None:
    whole = _trajectory("Why?", "good 0", "good 1")
    parts = [pair.trajectory for pair in pairs_of(whole)]
    assert _texts(parts) == [("good 0", "bad"), ("good 1", "bad")]
    assert [len(part.episode) for part in parts] == [1, 1]
    assert len(whole.episode) == 2
    one = _trajectory("Why?", "good")
    assert next(pairs_of(one)).trajectory is one


def test_an_episode_of_another_kind_has_no_pair() -> None:
    episode = [EpisodeItem(role=EpisodeItemRole.USER, content="Why?")]
    assert list(pairs_of(Trajectory(episode=episode, reward=1.0))) == []


def test_groups_are_those_of_the_examples_in_order() -> None:
    names = ["b", "a", "b", None, "a"]
    trajectories = [_trajectory(f"{n}", "good", example_id=name) for n, name in enumerate(names)]
    assert by_example(trajectories) == [
        [trajectories[0], trajectories[2]],
        [trajectories[1], trajectories[4]],
        [trajectories[3]],
    ]


async def test_trajectories_of_another_builder_are_trained_on(run_config: FinetuneConfig) -> None:
    builder = ForeignBuilder(
        [[_trajectory("Why?", "good 0", "good 1", example_id=None)], [_trajectory("How?", "good")]]
    )
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, builder, adapter)
    await trainer.run(1)
    await trainer.cleanup()
    assert sorted(_texts(_submitted(adapter))) == [("good", "bad"), ("good 0", "bad"), ("good 1", "bad")]


async def test_a_curriculum_is_warned_about(
    run_config: FinetuneConfig, make_builder: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    await _trainer(run_config, make_builder(), RemoteAdapter())
    assert caplog.messages == []
    run_config.curriculum_learning = CurriculumLearningConfig(enabled=True)
    await _trainer(run_config, make_builder(), RemoteAdapter())
    assert any("curriculum_learning is ignored" in message for message in caplog.messages)


async def test_a_failed_collection_ends_the_run_and_keeps_what_was_collected(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0, 3.0]}), RuntimeError("gone"))
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, builder, adapter, num_runs=3)
    with pytest.raises(CollectionError, match="gone"):
        await trainer.run(1)
    assert adapter.submitted == []
    metrics = _metrics(run_config)
    assert (metrics["status"], metrics["collected"]["pairs"], metrics["job"]) == ("failed", 3, None)
    assert "gone" in metrics["message"]
    assert [(row["chosen_score"], row["rejected_score"]) for row in _kept(run_config)] == [
        (3.0, 1.0),
        (3.0, 2.0),
        (2.0, 1.0),
    ]


async def test_a_failed_collection_may_be_left_out(
    run_config: FinetuneConfig,
    make_builder: Maker,
    evaluation_of: Evaluations,
    caplog: pytest.LogCaptureFixture,
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0]}), RuntimeError("gone"), evaluation_of({"b": [1.0, 2.0]}))
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, builder, adapter, num_runs=3, continue_on_collection_error=True)
    with caplog.at_level(logging.WARNING, OURS):
        await trainer.run(1)
    assert len(_submitted(adapter)) == 2
    (message,) = caplog.messages
    assert message.startswith("run 2 of 3 failed and is left out: ")
    assert message.endswith("gone")
    assert any("gone" in problem for problem in _metrics(run_config)["collected"]["problems"])


async def test_when_every_collection_fails_there_is_nothing_to_submit(
    run_config: FinetuneConfig, make_builder: Maker
) -> None:
    builder = make_builder(RuntimeError("gone"), RuntimeError("gone too"))
    trainer = await _trainer(run_config, builder, RemoteAdapter(), num_runs=2, continue_on_collection_error=True)
    with pytest.raises(TrainingError, match=r"no preference pair was collected .*gone; .*gone too"):
        await trainer.run(1)


@pytest.mark.parametrize(
    ("turns", "settings", "reason"),
    [
        ({"a": [1.0, 1.0, 1.0]}, {}, r"\(1 examples, 3 candidates, 1 turns\): skipped pairs: 3 tie"),
        ({}, {}, r"\(1 examples, 0 candidates, 0 turns\): is the dataset empty"),
        ({"a": [1.0, 2.0]}, {"ttc_step_name": "moves"}, "no step is called 'moves', but there are"),
        ({"a": [1.0, 2.0]}, {"min_score_diff": 5.0}, "1 below_min_score_diff"),
    ],
)
async def test_nothing_collected_says_why(
    run_config: FinetuneConfig,
    make_builder: Maker,
    evaluation_of: Evaluations,
    turns: dict[str, list[float]],
    settings: dict[str, object],
    reason: str,
) -> None:
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, make_builder(evaluation_of(turns), **settings), adapter)
    with pytest.raises(TrainingError, match=f"no preference pair was collected .*{reason}") as raised:
        await trainer.run(1)
    assert "\n" not in str(raised.value)
    assert adapter.submitted == []
    assert _metrics(run_config)["message"] == str(raised.value)
    assert _kept(run_config) == []


async def test_pairs_that_could_not_be_submitted_are_kept(
    run_config: FinetuneConfig,
    make_builder: Maker,
    evaluation_of: Evaluations,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusal = TrainingError("the quota is spent")
    trainer = await _trainer(run_config, make_builder(evaluation_of({"a": [1.0, 2.0]})), RemoteAdapter(refuses=refusal))
    with pytest.raises(TrainingError, match="the quota is spent"):
        await trainer.run(1)
    (row,) = _kept(run_config)
    assert row["chosen"] == [{"role": "assistant", "content": "response 1"}]
    assert "the 1 pairs that were collected are kept in" in caplog.text
    assert _metrics(run_config)["status"] == "failed"


@pytest.mark.parametrize("outcome", [TrainingStatusEnum.FAILED, TrainingStatusEnum.CANCELED])
async def test_a_job_that_did_not_succeed_is_an_error(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations, outcome: TrainingStatusEnum
) -> None:
    trainer = await _trainer(run_config, make_builder(evaluation_of({"a": [1.0, 2.0]})), RemoteAdapter(outcome))
    with pytest.raises(TrainingError, match=f"training job dpo_[0-9a-f]{{8}} {outcome}: so it ended"):
        await trainer.run(1)
    assert (_metrics(run_config)["status"], _metrics(run_config)["job"]) == (outcome.value, {"job": 1})


async def test_a_job_need_not_be_waited_for(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    adapter = RemoteAdapter(TrainingStatusEnum.FAILED)
    builder = make_builder(evaluation_of({"a": [1.0, 2.0]}))
    trainer = await _trainer(run_config, builder, adapter, wait_for_completion=False)
    (status,) = await trainer.run(1)
    assert (status.status, status.backend, adapter.waited) == (TrainingStatusEnum.RUNNING, "remote", 0)
    assert _metrics(run_config)["status"] == "running"


async def test_running_twice_does_not_double_the_data(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    builder = make_builder(*(evaluation_of({"a": [1.0, 2.0, 2.0]}) for _ in range(2)))
    adapter = RemoteAdapter()
    trainer = await _trainer(run_config, builder, adapter, deduplicate_pairs=False)
    for _ in range(2):
        await trainer.run(1)
    assert [len(collection.trajectories[0]) for collection in adapter.submitted] == [2, 2]
    assert _metrics(run_config)["collected"]["pairs"] == 2
    assert _metrics(run_config)["skipped"]["pairs"] == {"tie": 1}


async def test_a_trainer_must_be_initialized() -> None:
    with pytest.raises(TrainingError, match="not initialized"):
        await DPOTrainer(DPOTrainerConfig()).run(1)


async def test_an_output_folder_that_cannot_be_written_fails_before_the_work(
    run_config: FinetuneConfig, make_builder: Maker
) -> None:
    run_config.output_dir.write_text("a file in the way")
    with pytest.raises(OutputError, match=f"cannot write to '{run_config.output_dir}'"):
        await _trainer(run_config, make_builder(), RemoteAdapter())


class EndlessBuilder(DPOTrajectoryBuilder):
    async def run_eval(self) -> EvaluationRunOutput:
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")


async def test_cleanup_cancels_evaluations_under_way(run_config: FinetuneConfig) -> None:
    builder = EndlessBuilder(DPOTrajectoryBuilderConfig())
    trainer = await _trainer(run_config, builder, RemoteAdapter())
    await builder.start_run("left over")
    task = builder.evaluation_runs["left over"]
    await asyncio.sleep(0)
    await trainer.cleanup()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_interrupt_keeps_what_was_collected(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    class InterruptedAdapter(RemoteAdapter):
        async def submit(self, trajectories: TrajectoryCollection) -> TrainingJobRef:
            raise asyncio.CancelledError

    trainer = await _trainer(run_config, make_builder(evaluation_of({"a": [1.0, 2.0]})), InterruptedAdapter())
    with pytest.raises(asyncio.CancelledError):
        await trainer.run(1)
    assert len(_kept(run_config)) == 1


async def test_metrics_that_cannot_be_written_do_not_cost_the_outcome(
    run_config: FinetuneConfig,
    make_builder: Maker,
    evaluation_of: Evaluations,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer = await _trainer(run_config, make_builder(evaluation_of({"a": [1.0, 2.0]})), RemoteAdapter())
    (run_config.output_dir / "final_metrics.json").mkdir()
    (status,) = await trainer.run(1)
    assert status.status is TrainingStatusEnum.COMPLETED
    assert "the metrics could not be written" in caplog.text


async def test_the_dataset_adapter_learns_how_the_pairs_were_collected(
    run_config: FinetuneConfig, tmp_path: Path, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    turns = {f"turn {n}": [1.0, 2.0, 2.0] for n in range(5)}
    builder = make_builder(evaluation_of(turns), evaluation_of(turns))
    adapter = DatasetTrainerAdapter(DatasetTrainerAdapterConfig(output_dir=tmp_path / "out", validation_fraction=0.0))
    trainer = await _trainer(run_config, builder, adapter, num_runs=2, seed=21, validation_fraction=0.4)
    (status,) = await trainer.run(1)
    assert status.status is TrainingStatusEnum.COMPLETED
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["seed"] == 21
    assert manifest["counts"] == {"train_pairs": 6, "validation_pairs": 4}
    assert manifest["skipped"] == {"pairs": {"tie": 10}, "trainer": {"duplicate_pairs": 10}}
    assert manifest["report"]["pairs"] == 20


class InterruptedBuilder(ForeignBuilder):
    """Delivers its first run and is interrupted in the second."""

    async def finalize(self, run_id: str, meta: dict[str, Any] | None = None) -> TrajectoryCollection:
        if run_id.endswith("_run1"):
            raise asyncio.CancelledError
        return await super().finalize(run_id)


@pytest.mark.parametrize("scores", [{"a": [1.0, 2.0], "b": [5.0], "c": [0.5]}, {"b": [5.0], "c": [0.5]}])
async def test_answers_that_are_alone_reach_the_unpaired_format(
    run_config: FinetuneConfig,
    tmp_path: Path,
    make_builder: Maker,
    evaluation_of: Evaluations,
    scores: dict[str, list[float]],
) -> None:
    builder = make_builder(evaluation_of(scores), require_multiple_candidates=False)
    config = DatasetTrainerAdapterConfig(output_dir=tmp_path, formats=["kto", "trl"], single_label_score=3.0)
    trainer = await _trainer(run_config, builder, DatasetTrainerAdapter(config), validation_fraction=0.5)
    await trainer.run(1)
    sides = [_lines(tmp_path / "kto" / f"{side}.jsonl") for side in ("train", "validation")]
    prompts = [{json.dumps(row["prompt"]) for row in rows} for rows in sides]
    assert prompts[0].isdisjoint(prompts[1])
    assert sum(map(len, prompts)) == len(scores)
    labels = [row["label"] for rows in sides for row in rows]
    assert labels.count(True) == labels.count(False) == len(scores) - 1


async def test_answers_that_are_alone_stay_out_unless_they_are_asked_for(
    run_config: FinetuneConfig, tmp_path: Path, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    builder = make_builder(evaluation_of({"a": [1.0, 2.0], "b": [5.0]}))
    config = DatasetTrainerAdapterConfig(output_dir=tmp_path, formats=["kto"], single_label_score=3.0)
    await (await _trainer(run_config, builder, DatasetTrainerAdapter(config))).run(1)
    assert len(_lines(tmp_path / "kto" / "train.jsonl")) == 2


async def test_an_interrupted_run_says_so_and_keeps_what_ended_before(
    run_config: FinetuneConfig, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = await _trainer(run_config, InterruptedBuilder([[_trajectory("q", "good")]]), RemoteAdapter(), num_runs=2)
    with caplog.at_level(logging.WARNING, OURS), pytest.raises(asyncio.CancelledError):
        await trainer.run(1)
    assert "interrupted in run 2 of 2" in caplog.text
    assert _metrics(run_config)["status"] == "canceled"
    assert len(_kept(run_config)) == 1


async def test_pairs_of_somebody_elses_builder_are_counted(run_config: FinetuneConfig) -> None:
    builder = ForeignBuilder([[_trajectory("q", "good", "better"), _trajectory("p", "fine")]])
    await (await _trainer(run_config, builder, RemoteAdapter())).run(1)
    assert _metrics(run_config)["collected"]["pairs"] == 3


async def test_prompts_that_differ_in_white_space_are_one_side_of_the_split_but_not_one_pair(
    run_config: FinetuneConfig,
) -> None:
    adapter = RemoteAdapter()
    builder = ForeignBuilder([[_trajectory("if x:\n    a\nb", "good"), _trajectory("if x:\n    a\n    b", "good")]])
    await (await _trainer(run_config, builder, adapter)).run(1)
    assert len(_submitted(adapter)) == 2
    assert len({(trajectory.metadata or {})[SPLIT_KEY] for trajectory in _submitted(adapter)}) == 1
