import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from nat.data_models.evaluate_runtime import EvaluationRunOutput
from nat.data_models.finetuning import (
    DPOItem,
    FinetuneConfig,
    TrainingJobRef,
    TrainingStatusEnum,
    Trajectory,
    TrajectoryCollection,
)

from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.plugin.finetuning.job_adapter import BackendTrainerAdapter, job_of
from nat_dpo_pipeline.plugin.finetuning.submissions import SPLIT_KEY
from nat_dpo_pipeline.plugin.finetuning.trainer import DPOTrainer
from nat_dpo_pipeline.plugin.finetuning.trajectory_builder import DPOTrajectoryBuilder
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrainerConfig, JobAdapterConfig
from nat_dpo_pipeline.plugin.interrupts import Interrupted
from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus, StatusUnknown
from nat_dpo_pipeline.trainers.settings import PolledJobSettings
from tests.servers.fine_tuning import KEY, FineTuningServer, serving
from tests.trainers.scripted_backend import RUNNING, SUCCEEDED, ScriptedBackend

Maker = Callable[..., DPOTrajectoryBuilder]
Evaluations = Callable[..., EvaluationRunOutput]

FAILED = JobStatus(JobState.FAILED, "invalid_n_examples: has 2 examples")
REF = TrainingJobRef(run_id="run", backend="scripted", metadata={"job_id": "job-1", "place": "here"})
LOGGER = "nat_dpo_pipeline.plugin.finetuning.job_adapter"


class _Config(PolledJobSettings, JobAdapterConfig):
    """Settings of the scripted back end."""


def _adapter(backend: ScriptedBackend, **settings: Any) -> BackendTrainerAdapter:
    return BackendTrainerAdapter(_Config(**{"poll_interval": 0.001, **settings}), backend)


def _trajectory(prompt: str, side: str | None = None) -> Trajectory:
    item = DPOItem(prompt=prompt, chosen_response="good", rejected_response="bad")
    return Trajectory(episode=[item], reward=1.0, metadata={SPLIT_KEY: side} if side else {})


def _collection(trajectories: Iterable[Trajectory]) -> TrajectoryCollection:
    return TrajectoryCollection(trajectories=[[one] for one in trajectories], run_id="run")


async def test_a_back_end_that_takes_no_job_fails_before_the_work(
    run_config: FinetuneConfig, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = _adapter(ScriptedBackend(refuses=ConfigurationError("set A_KEY")))
    with pytest.raises(ConfigurationError, match="set A_KEY"):
        await adapter.initialize(run_config)
    assert not await adapter.is_healthy()
    assert "scripted is not ready: set A_KEY" in caplog.messages


async def test_a_back_end_that_takes_jobs_is_healthy(run_config: FinetuneConfig) -> None:
    adapter = _adapter(ScriptedBackend())
    await adapter.initialize(run_config)
    assert await adapter.is_healthy()


async def test_pairs_are_submitted_as_the_trainer_split_them(caplog: pytest.LogCaptureFixture) -> None:
    backend = ScriptedBackend()
    pairs = [_trajectory("a", "train"), _trajectory("b", "validation"), _trajectory("c", "train")]
    with caplog.at_level(logging.INFO, LOGGER):
        ref = await _adapter(backend, seed=3).submit(_collection(pairs))
    (data,) = backend.submitted
    assert (data.run_id, data.seed) == ("run", 3)
    assert {side: [row.prompt for row in rows] for side, rows in data.splits.items()} == {
        SplitName.TRAIN: ["a", "c"],
        SplitName.VALIDATION: ["b"],
    }
    assert ref == REF
    assert caplog.messages == ["scripted job job-1 started: 2 pairs to train, 1 pairs to validation"]


async def test_pairs_that_no_trainer_split_are_split_by_prompt() -> None:
    backend = ScriptedBackend()
    pairs = [_trajectory(f"prompt {n % 10}") for n in range(30)]
    await _adapter(backend, validation_fraction=0.3).submit(_collection(pairs))
    (data,) = backend.submitted
    prompts = {side: {row.prompt for row in rows} for side, rows in data.splits.items()}
    assert (len(prompts[SplitName.TRAIN]), len(prompts[SplitName.VALIDATION])) == (7, 3)
    assert not prompts[SplitName.TRAIN] & prompts[SplitName.VALIDATION]


async def test_without_a_pair_nothing_is_submitted() -> None:
    backend = ScriptedBackend()
    with pytest.raises(TrainingError, match="no preference pair to train on"):
        await _adapter(backend).submit(_collection([]))
    assert backend.submitted == []


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (JobState.PENDING, TrainingStatusEnum.PENDING),
        (JobState.RUNNING, TrainingStatusEnum.RUNNING),
        (JobState.SUCCEEDED, TrainingStatusEnum.COMPLETED),
        (JobState.FAILED, TrainingStatusEnum.FAILED),
        (JobState.CANCELED, TrainingStatusEnum.CANCELED),
    ],
)
async def test_a_status_reaches_nat_whole(state: JobState, status: TrainingStatusEnum) -> None:
    said = JobStatus(state, "step 3", 30.0, {"loss": 0.5}, "a model", {"checkpoints": ["one"]})
    backend = ScriptedBackend([said])
    found = await _adapter(backend).status(REF)
    assert (found.run_id, found.backend, found.status) == ("run", "scripted", status)
    assert (found.message, found.progress) == ("step 3", 30.0)
    assert found.metadata == {
        "job_id": "job-1",
        "place": "here",
        "metrics": {"loss": 0.5},
        "result": "a model",
        "checkpoints": ["one"],
    }
    assert backend.asked == [Job("scripted", "job-1", "run", {"place": "here"})]


async def test_waiting_tells_each_change_once_and_cleans_up(caplog: pytest.LogCaptureFixture) -> None:
    half = JobStatus(JobState.RUNNING, "step 5", 50.0)
    backend = ScriptedBackend([RUNNING, RUNNING, half, half, StatusUnknown("away"), half, SUCCEEDED])
    with caplog.at_level(logging.INFO, LOGGER):
        status = await _adapter(backend).wait_until_complete(REF)
    assert (status.status, status.progress) == (TrainingStatusEnum.COMPLETED, None)
    assert caplog.messages == [
        "scripted job job-1: running",
        "scripted job job-1: running 50 %, step 5",
        "scripted job job-1: succeeded, the-model",
    ]
    assert backend.cleaned_up == [job_of(REF)]
    assert backend.cancelled == []


async def test_the_time_limit_of_the_configuration_cancels_and_cleans_up() -> None:
    backend = ScriptedBackend([RUNNING])
    with pytest.raises(TrainingError, match=r"job-1 was not done after 0\.05 s and was cancelled"):
        await _adapter(backend, timeout=0.05).wait_until_complete(REF)
    assert backend.cancelled == backend.cleaned_up == [job_of(REF)]


async def test_the_poll_interval_of_the_caller_counts() -> None:
    backend = ScriptedBackend([RUNNING])
    with pytest.raises(TrainingError):
        await _adapter(backend, timeout=0.2).wait_until_complete(REF, poll_interval=1000)
    assert len(backend.asked) == 1


async def test_an_interrupted_wait_cancels_and_cleans_up() -> None:
    backend = ScriptedBackend([RUNNING])
    waiting = asyncio.create_task(_adapter(backend).wait_until_complete(REF))
    await backend.was_asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert backend.cancelled == backend.cleaned_up == [job_of(REF)]


async def test_a_signal_cancels_the_job_and_is_told(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    backend = ScriptedBackend([RUNNING])
    training = asyncio.create_task(_trained(run_config, make_builder(evaluation_of({"turn": [1.0, 0.0]})), backend))
    await backend.was_asked.wait()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted, match=r"^interrupted: job job-1 was cancelled$"):
        await training
    assert len(backend.cancelled) == len(backend.cleaned_up) == 1
    metrics = json.loads((run_config.output_dir / "final_metrics.json").read_text())
    assert (metrics["status"], metrics["message"]) == ("canceled", "interrupted: job job-1 was cancelled")


@pytest.mark.parametrize("error", [TrainingError("no such file"), ConfigurationError("no key")])
async def test_an_error_of_cleaning_up_does_not_hide_what_became_of_the_job(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    status = await _adapter(ScriptedBackend([FAILED], cleaning_up=error)).wait_until_complete(REF)
    assert status.message == FAILED.message
    assert f"scripted job job-1 leaves something behind: {error}" in caplog.messages


async def _trained(run_config: FinetuneConfig, builder: DPOTrajectoryBuilder, backend: ScriptedBackend) -> Any:
    trainer = DPOTrainer(DPOTrainerConfig())
    await trainer.bind_components(builder, _adapter(backend))
    await trainer.initialize(run_config)
    return await trainer.run(1)


async def test_the_reason_of_a_failed_job_reaches_the_trainers_error_and_metrics(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    backend = ScriptedBackend([RUNNING, FAILED])
    with pytest.raises(TrainingError, match=r"failed: invalid_n_examples: has 2 examples$"):
        await _trained(run_config, make_builder(evaluation_of({"turn": [1.0, 0.0]})), backend)
    metrics = json.loads((run_config.output_dir / "final_metrics.json").read_text())
    assert (metrics["status"], metrics["message"]) == ("failed", FAILED.message)
    assert metrics["job"] == {"job_id": "job-1", "place": "here"}


async def test_a_trainer_ends_with_the_model(
    run_config: FinetuneConfig, make_builder: Maker, evaluation_of: Evaluations
) -> None:
    (status,) = await _trained(run_config, make_builder(evaluation_of({"turn": [1.0, 0.0]})), ScriptedBackend())
    assert status.status == TrainingStatusEnum.COMPLETED
    assert status.metadata["result"] == "the-model"


_IN_A_NEW_PROCESS = """
import asyncio, sys
from pathlib import Path
from nat.data_models.finetuning import TrainingJobRef
from nat_dpo_pipeline.plugin.finetuning.job_adapter import BackendTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning_config import OpenAITrainerAdapterConfig
from nat_dpo_pipeline.trainers.openai.dpo import OpenAIBackend

path, url, key = sys.argv[1:]
ref = TrainingJobRef.model_validate_json(Path(path).read_text())
config = OpenAITrainerAdapterConfig(model="m", base_url=url, api_key=key, poll_interval=0.01, delete_files=True)
adapter = BackendTrainerAdapter(config, OpenAIBackend(config))
print(asyncio.run(adapter.wait_until_complete(ref)).model_dump_json())
"""


async def test_a_saved_reference_is_waited_for_in_a_new_process(tmp_path: Path) -> None:
    from nat_dpo_pipeline.plugin.finetuning_config import OpenAITrainerAdapterConfig
    from nat_dpo_pipeline.trainers.openai.dpo import OpenAIBackend

    with serving(FineTuningServer()) as server:
        config = OpenAITrainerAdapterConfig(model="m", base_url=server.url, api_key=KEY, validation_fraction=0.3)
        adapter = BackendTrainerAdapter(config, OpenAIBackend(config))
        ref = await adapter.submit(_collection(_trajectory(f"prompt {n}") for n in range(20)))
        saved = tmp_path / "job.json"
        saved.write_text(ref.model_dump_json())
        command = [sys.executable, "-c", _IN_A_NEW_PROCESS, str(saved), server.url, KEY]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        status = json.loads(done.stdout.splitlines()[-1])
        assert (status["run_id"], status["status"]) == ("run", "completed")
        assert status["metadata"]["result"] == "ft:m:mine"
        assert server.deleted == ["file-0", "file-1"]
        assert len(server.created) == 1


@pytest.mark.parametrize("metadata", [None, {}, {"job_id": None}, {"job": "1"}])
def test_a_reference_that_names_no_job_is_refused(metadata: dict[str, Any] | None) -> None:
    ref = TrainingJobRef(run_id="run", backend="scripted", metadata=metadata)
    with pytest.raises(TrainingError, match="the reference of run 'run' names no job: 'job_id' is not in its metadata"):
        job_of(ref)


async def test_progress_is_logged_to_a_file(run_config: FinetuneConfig, tmp_path: Path) -> None:
    adapter = _adapter(ScriptedBackend())
    await adapter.initialize(run_config)
    adapter.log_progress(REF, {"loss": 0.5})
    adapter.log_progress(REF, {"path": tmp_path}, str(tmp_path / "other"))
    (line,) = (run_config.output_dir / "scripted_run.jsonl").read_text().splitlines()
    assert json.loads(line) == {"run_id": "run", "job": REF.metadata, "loss": 0.5}
    (line,) = (tmp_path / "other" / "scripted_run.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == str(tmp_path)
