"""Trainer and adapter together, over a service on this machine."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nat.data_models.finetuning import (
    DPOItem,
    EpisodeItem,
    EpisodeItemRole,
    FinetuneConfig,
    TrainingJobRef,
    TrainingStatusEnum,
    Trajectory,
    TrajectoryBuilderConfig,
    TrajectoryCollection,
)
from nat.finetuning.interfaces.trajectory_builder import TrajectoryBuilder

from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.plugin.finetuning.job_adapter import BackendTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning.trainer import DPOTrainer
from nat_dpo_pipeline.plugin.finetuning_config import (
    NeMoCustomizerTrainerAdapterConfig,
    NeMoCustomizerTrainerConfig,
)
from nat_dpo_pipeline.testing.server import Response
from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend
from tests.servers.nemo import CONFIG, NemoService, serving_nemo

# ruff: noqa: ARG002 - NAT prescribes the arguments

TRAINING, VALIDATION = "training/training_file.jsonl", "validation/validation_file.jsonl"


class GivenBuilder(TrajectoryBuilder):
    """Collects what it was given."""

    def __init__(self, *trajectories: Trajectory) -> None:
        super().__init__(TrajectoryBuilderConfig())
        self._trajectories = list(trajectories)

    async def start_run(self, run_id: str, meta: dict[str, Any] | None = None) -> None:
        pass

    async def finalize(self, run_id: str, meta: dict[str, Any] | None = None) -> TrajectoryCollection:
        return TrajectoryCollection(trajectories=[self._trajectories], run_id=run_id)

    def log_progress(self, run_id: str, metrics: dict[str, Any], output_dir: str | None = None) -> None:
        raise AssertionError("the trainer has no reason to call this")


@pytest.fixture
def nemo() -> Iterator[NemoService]:
    with serving_nemo() as service:
        yield service


def _adapter(nemo: NemoService, **settings: Any) -> BackendTrainerAdapter:
    given = {
        "entity_host": nemo.url,
        "datastore_host": nemo.url,
        "namespace": "ns",
        "customization_config": CONFIG,
        "poll_interval_seconds": 0.005,
        **settings,
    }
    config = NeMoCustomizerTrainerAdapterConfig.model_validate(given)
    return BackendTrainerAdapter(config, NemoCustomizerBackend(config))


async def _trainer(
    run_config: FinetuneConfig, adapter: BackendTrainerAdapter, *trajectories: Trajectory, **settings: Any
) -> DPOTrainer:
    trainer = DPOTrainer(NeMoCustomizerTrainerConfig(**settings))
    await trainer.bind_components(GivenBuilder(*trajectories), adapter)
    await trainer.initialize(run_config)
    return trainer


def _pairs(*pairs: str) -> Trajectory:
    """`"Why?:A>B"` is a pair of A and B."""
    items = []
    for pair in pairs:
        prompt, _, texts = pair.partition(":")
        chosen, _, rejected = texts.partition(">")
        items.append(DPOItem(prompt=prompt, chosen_response=chosen, rejected_response=rejected))
    return Trajectory(episode=items, reward=1.0)


def _uploaded(nemo: NemoService) -> list[list[tuple[str, str, str]]]:
    """The pairs of the two files of the only dataset."""
    ((repo, files),) = nemo.repos.items()
    return [
        [
            (row["prompt"][0]["content"], row["chosen_response"], row["rejected_response"])
            for row in nemo.rows(repo, name)
        ]
        for name in (TRAINING, VALIDATION)
        if name in files
    ]


def _metrics(run_config: FinetuneConfig) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((Path(run_config.output_dir) / "final_metrics.json").read_text())
    return metrics


async def test_health_is_looked_at(nemo: NemoService, caplog: pytest.LogCaptureFixture) -> None:
    assert await _adapter(nemo).is_healthy()
    assert not await _adapter(nemo, entity_host="http://127.0.0.1:9").is_healthy()
    assert "nemo-customizer is not ready: NeMo Microservices at http://127.0.0.1:9" in caplog.text


async def test_a_run_does_not_begin_without_the_service(nemo: NemoService, run_config: FinetuneConfig) -> None:
    with pytest.raises(TrainingError, match="got no answer"):
        await _trainer(run_config, _adapter(nemo, datastore_host="http://127.0.0.1:9"), _pairs("Why?:A>B"))
    nemo.trouble("GET", "/v1/namespaces/ns", Response(401))
    with pytest.raises(ConfigurationError, match="check access_token"):
        await _trainer(run_config, _adapter(nemo), _pairs("Why?:A>B"))


async def test_pairs_are_split_by_prompt_and_a_single_prompt_is_not_held_out(
    nemo: NemoService, run_config: FinetuneConfig
) -> None:
    prompts = [_pairs(*(f"Why {prompt}?:A{number}>B{number}" for number in range(5))) for prompt in range(10)]
    trainer = await _trainer(run_config, _adapter(nemo, seed=3), *prompts, seed=1)
    await trainer.run(1)
    training, validation = ({pair[0] for pair in pairs} for pairs in _uploaded(nemo))
    assert (len(training), len(validation)) == (8, 2)
    assert not training & validation
    assert nemo.jobs["cust-1"]["hyperparameters"]["seed"] == 3

    nemo.repos.clear()
    await (await _trainer(run_config, _adapter(nemo), _pairs("Why?:A>B"))).run(1)
    assert _uploaded(nemo) == [[("Why?", "A", "B")]]


def _turn(place: int, better: str, worse: str) -> Trajectory:
    """A pair that answers one of two questions after a history of its own."""
    messages = [{"role": "system", "content": f"Game {place}"}, {"role": "user", "content": f"Move {place % 2}?"}]
    item = DPOItem.model_validate({"prompt": messages, "chosen_response": better, "rejected_response": worse})
    return Trajectory(episode=[item], reward=1.0)


async def test_rows_that_keep_the_last_message_are_split_and_compared_by_it(
    nemo: NemoService, run_config: FinetuneConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pairs = [_turn(place, "A", "B") for place in range(20)]
    contradicting = [_turn(40, "C", "D"), _turn(42, "D", "C")]
    adapter = _adapter(nemo, use_full_message_history=False, validation_fraction=0.5)
    await (await _trainer(run_config, adapter, *pairs, *contradicting, validation_fraction=0.5)).run(1)
    ((repo, _),) = nemo.repos.items()
    rows = {name: nemo.rows(repo, name) for name in (TRAINING, VALIDATION)}
    prompts = [{row["prompt"] for row in side} for side in rows.values()]
    assert prompts in ([{"Move 0?"}, {"Move 1?"}], [{"Move 1?"}, {"Move 0?"}])
    assert [len(side) for side in rows.values()] == [1, 1]
    assert "left out: 18 duplicate_pairs" in caplog.text
    assert "left out of the dataset: 2 contradicted" in caplog.text
    assert _metrics(run_config)["skipped"]["trainer"] == {"duplicate_pairs": 18}


@pytest.mark.parametrize(("settings", "rows"), [({"max_pairs": 2}, 2), ({"deduplicate_pairs": False}, 20)])
async def test_pairs_are_drawn_and_kept_by_what_rows_keep_of_their_prompts(
    nemo: NemoService, run_config: FinetuneConfig, settings: dict[str, Any], rows: int
) -> None:
    pairs = [_turn(place, "A", "B") for place in range(20)]
    await (await _trainer(run_config, _adapter(nemo, use_full_message_history=False), *pairs, **settings)).run(1)
    ((repo, _),) = nemo.repos.items()
    sides = [{row["prompt"] for row in nemo.rows(repo, name)} for name in (TRAINING, VALIDATION)]
    assert sum(len(nemo.rows(repo, name)) for name in (TRAINING, VALIDATION)) == rows
    assert sides in ([{"Move 0?"}, {"Move 1?"}], [{"Move 1?"}, {"Move 0?"}])


async def test_equal_pairs_are_one_wherever_they_stand(nemo: NemoService, run_config: FinetuneConfig) -> None:
    trajectories = (_pairs("Why?:A>C", "Why?:B>C"), _pairs("Why?:A>C"), _pairs("Why?:B>C"))
    await (await _trainer(run_config, _adapter(nemo), *trajectories)).run(1)
    assert _uploaded(nemo) == [[("Why?", "A", "C"), ("Why?", "B", "C")]]


async def test_max_pairs_counts_pairs_and_draws_the_same_again(nemo: NemoService, run_config: FinetuneConfig) -> None:
    trajectories = [_pairs(*(f"Why?:A{place}{number}>C" for number in range(4))) for place in range(5)]
    drawn = []
    for _ in range(2):
        nemo.repos.clear()
        await (await _trainer(run_config, _adapter(nemo), *trajectories, max_pairs=3)).run(1)
        drawn.append(_uploaded(nemo))
    assert [len(pairs) for pairs in drawn[0]] == [3]
    assert drawn[0] == drawn[1]


async def test_what_is_no_pair_is_counted(nemo: NemoService, run_config: FinetuneConfig) -> None:
    said = Trajectory(episode=[EpisodeItem(role=EpisodeItemRole.USER, content="Why?")] * 2, reward=1.0)
    trainer = await _trainer(run_config, _adapter(nemo), said, _pairs("Why?:A>B"), Trajectory(episode=[], reward=0.0))
    await trainer.run(1)
    assert _metrics(run_config)["skipped"]["trainer"] == {"no_preference_pair": 3}


async def test_a_failed_job_is_told_with_its_reason_and_on_record(
    nemo: NemoService, run_config: FinetuneConfig
) -> None:
    nemo.statuses = [
        {"status": "failed", "status_logs": [{"updated_at": "1", "message": "failed", "detail": "CUDA out of memory"}]}
    ]
    trainer = await _trainer(run_config, _adapter(nemo), _pairs("Why?:A>B"))
    with pytest.raises(TrainingError, match="failed: CUDA out of memory"):
        await trainer.run(1)
    assert _metrics(run_config)["status"] == "failed"
    assert _metrics(run_config)["message"] == "failed: CUDA out of memory"


async def test_a_run_may_be_repeated(nemo: NemoService, run_config: FinetuneConfig) -> None:
    trainer = await _trainer(run_config, _adapter(nemo), _pairs("Why?:A>B"))
    for _ in range(2):
        (status,) = await trainer.run(1)
        assert status.status is TrainingStatusEnum.COMPLETED
    assert [len(nemo.rows(repo, TRAINING)) for repo in nemo.repos] == [1, 1]


async def test_progress_is_told_while_nothing_is_known_of_it(
    nemo: NemoService, run_config: FinetuneConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nemo.statuses = [
        {"status": "created", "percentage_done": None},
        {"status": "running", "percentage_done": 50.0, "train_loss": 0.5, "epochs_completed": 1, "steps_completed": 9},
        {"status": "completed", "percentage_done": 100.0},
    ]
    trainer = await _trainer(run_config, _adapter(nemo), _pairs("Why?:A>B"))
    (status,) = await trainer.run(1)
    assert status.metadata["result"] == nemo.jobs["cust-1"]["output_model"]
    assert "nemo-customizer job cust-1: pending, created" in caplog.text
    assert "nemo-customizer job cust-1: running 50 %, running" in caplog.text


async def test_losses_epochs_and_steps_are_in_the_metadata(nemo: NemoService, run_config: FinetuneConfig) -> None:
    trainer = await _trainer(run_config, _adapter(nemo), _pairs("Why?:A>B"))
    await trainer.run(1)
    nemo.statuses = [{"status": "running", "train_loss": 0.5, "epochs_completed": 1, "steps_completed": 9}]
    ref = TrainingJobRef(run_id="r", backend="nemo-customizer", metadata=_metrics(run_config)["job"])
    status = await trainer.trainer_adapter.status(ref)
    assert status.metadata["metrics"] == {"train_loss": 0.5, "epochs_completed": 1.0, "steps_completed": 9.0}


async def test_a_saved_reference_is_gone_on_with_in_another_process(
    nemo: NemoService, run_config: FinetuneConfig
) -> None:
    trainer = await _trainer(
        run_config, _adapter(nemo, deploy_on_completion=True), _pairs("Why?:A>B"), wait_for_completion=False
    )
    (submitted,) = await trainer.run(1)
    assert submitted.status is TrainingStatusEnum.RUNNING
    assert nemo.deployments == {}

    saved = _metrics(run_config)["job"]
    ref = TrainingJobRef(run_id="run", backend="nemo-customizer", metadata=saved)
    status = await _adapter(nemo, deploy_on_completion=True).wait_until_complete(ref)
    assert status.status is TrainingStatusEnum.COMPLETED
    assert list(nemo.deployments) == ["ns/nat-deployment-cust-1"]


async def test_a_reference_that_nvidias_adapter_saved_is_gone_on_with(nemo: NemoService) -> None:
    nemo.jobs["cust-1"] = {"id": "cust-1", "output_model": "ns/theirs"}
    metadata = {"job_id": "cust-1", "output_model": "ns/theirs", "dataset_name": "nat-dpo"}
    ref = TrainingJobRef(run_id="run", backend="nemo-customizer", metadata=metadata)
    status = await _adapter(nemo).wait_until_complete(ref)
    assert (status.status, status.metadata["result"]) == (TrainingStatusEnum.COMPLETED, "ns/theirs")


async def test_progress_goes_to_the_runs_folder_whatever_the_numbers_are(
    nemo: NemoService, run_config: FinetuneConfig
) -> None:
    adapter = _adapter(nemo)
    await adapter.initialize(run_config)
    ref = TrainingJobRef(run_id="run", backend="nemo-customizer", metadata={"job_id": "cust-1"})
    adapter.log_progress(ref, {"loss": np.float32(0.5)})
    (line,) = (Path(run_config.output_dir) / "nemo-customizer_run.jsonl").read_text().splitlines()
    assert float(json.loads(line)["loss"]) == 0.5
