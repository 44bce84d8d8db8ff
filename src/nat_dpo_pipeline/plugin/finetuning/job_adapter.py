"""The one trainer adapter over all training back ends."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.plugin.finetuning.progress import append_progress
from nat_dpo_pipeline.plugin.finetuning.saved_job import SavedJob
from nat_dpo_pipeline.plugin.finetuning.submissions import PairSubmission, by_side, held_out_prompts
from nat_dpo_pipeline.plugin.finetuning_config import JobAdapterConfig
from nat_dpo_pipeline.plugin.interrupts import interruptible
from nat_dpo_pipeline.plugin.nat_api import (
    FinetuneConfig,
    TrainerAdapter,
    TrainingJobRef,
    TrainingJobStatus,
    TrainingStatusEnum,
    TrajectoryCollection,
)
from nat_dpo_pipeline.trainers.backend import Backend, Job, JobState, JobStatus, TrainingData
from nat_dpo_pipeline.trainers.waiting import wait

logger = logging.getLogger(__name__)

_STATES = {
    JobState.PENDING: TrainingStatusEnum.PENDING,
    JobState.RUNNING: TrainingStatusEnum.RUNNING,
    JobState.SUCCEEDED: TrainingStatusEnum.COMPLETED,
    JobState.FAILED: TrainingStatusEnum.FAILED,
    JobState.CANCELED: TrainingStatusEnum.CANCELED,
}
#: In the metadata of a reference.
JOB_ID = "job_id"


class BackendTrainerAdapter(TrainerAdapter):
    """Submits preference pairs to a back end and waits for what it makes of them."""

    def __init__(self, adapter_config: JobAdapterConfig, backend: Backend) -> None:
        super().__init__(adapter_config)
        self.config = adapter_config
        self.backend = backend

    async def initialize(self, run_config: FinetuneConfig) -> None:
        """Raises ConfigurationError or TrainingError when no job could be submitted, before the work for one."""
        await super().initialize(run_config)
        await self.backend.check()

    async def is_healthy(self) -> bool:
        """Whether a job could be submitted now; why not is logged."""
        try:
            await self.backend.check()
        except (ConfigurationError, TrainingError) as error:
            logger.warning("%s is not ready: %s", self.backend.name, error)
            return False
        return True

    async def submit(self, trajectories: TrajectoryCollection) -> TrainingJobRef:
        """Split by prompt, as the trainer did if it did, and start a job. Raises TrainingError without a pair."""
        config = self.config
        pairs = PairSubmission.of(trajectories, config.shorten()).pairs
        held_out = held_out_prompts(pairs, config.validation_fraction, config.seed)
        splits = by_side((pair.row for pair in pairs), held_out)
        with interruptible("interrupted: leaving no job behind; once more ends at once"):
            job = await self.backend.submit(TrainingData(trajectories.run_id, splits, config.seed))
        sides = ", ".join(f"{len(rows)} pairs to {side}" for side, rows in splits.items())
        logger.info("%s job %s started: %s", self.backend.name, job.id, sides)
        ref = TrainingJobRef(run_id=job.run_id, backend=job.backend, metadata={JOB_ID: job.id, **job.facts})
        self._keep(ref)
        return ref

    async def status(self, ref: TrainingJobRef) -> TrainingJobStatus:
        """Raises StatusUnknown when the back end could not be asked."""
        return _nat_status(ref, await self.backend.status(job_of(ref)))

    async def wait_until_complete(self, ref: TrainingJobRef, poll_interval: float | None = None) -> TrainingJobStatus:
        """The job's last status, FAILED with its reason too.

        The job is cancelled when the time is up, for which TrainingError is raised, and when this is interrupted.
        Raises StatusUnknown when the back end could not be asked for too long.
        """
        job = job_of(ref)
        told: list[tuple[object, ...]] = []

        def tell(status: JobStatus) -> None:
            if (line := (status.state, status.message, status.progress)) not in told[-1:]:
                told.append(line)
                logger.info("%s job %s: %s", self.backend.name, job.id, _told(status))

        patience = self.config.patience()
        if poll_interval is not None:
            patience = replace(patience, poll_interval=poll_interval)
        with interruptible("interrupted: cancelling the job; once more ends at once"):
            try:
                return _nat_status(ref, await wait(self.backend, job, patience, on_status=tell))
            finally:
                await self._clean_up(job)

    async def resume(self, ref: TrainingJobRef) -> TrainingJobStatus:
        """Wait for a job that another process submitted; one that was stopped or failed goes on if it can.

        Raises as `wait_until_complete`, and TrainingError when it cannot go on.
        """
        job = job_of(ref)
        status = await self.backend.status(job)
        if status.state is JobState.SUCCEEDED:
            return _nat_status(ref, status)
        if status.state.is_final:
            await self.backend.resume(job)
        return await self.wait_until_complete(ref)

    def _keep(self, ref: TrainingJobRef) -> None:
        run_config: FinetuneConfig | None = self.run_config
        if run_config is None:
            return
        folder = Path(run_config.output_dir)
        try:
            SavedJob.of(ref, self.config).write(folder)
        except OSError as error:
            logger.warning("`nat dpo resume` will not find the job, as %s cannot be written to: %s", folder, error)

    async def _clean_up(self, job: Job) -> None:
        try:
            await self.backend.cleanup(job)
        except (ConfigurationError, TrainingError) as error:
            # What became of the job is worth more than an error about what it leaves behind.
            logger.warning("%s job %s leaves something behind: %s", self.backend.name, job.id, error)

    def log_progress(self, ref: TrainingJobRef, metrics: dict[str, Any], output_dir: str | None = None) -> None:
        """Append one line on the job to `<back end>_<run id>.jsonl` in `output_dir`."""
        entry = {"run_id": ref.run_id, "job": ref.metadata, **metrics}
        append_progress(f"{self.backend.name}_{ref.run_id}.jsonl", entry, output_dir, self.run_config)


def job_of(ref: TrainingJobRef) -> Job:
    """The job that a reference names, one that another process saved too. Raises TrainingError when it names none."""
    facts = dict(ref.metadata or {})
    name = facts.pop(JOB_ID, None)
    if not isinstance(name, str):
        raise TrainingError(f"the reference of run {ref.run_id!r} names no job: {JOB_ID!r} is not in its metadata")
    return Job(ref.backend, name, ref.run_id, facts)


def _nat_status(ref: TrainingJobRef, status: JobStatus) -> TrainingJobStatus:
    return TrainingJobStatus(
        run_id=ref.run_id,
        backend=ref.backend,
        status=_STATES[status.state],
        progress=status.progress,
        message=status.message,
        metadata={**(ref.metadata or {}), "metrics": dict(status.metrics), "result": status.result, **status.facts},
    )


def _told(status: JobStatus) -> str:
    progress = "" if status.progress is None else f" {status.progress:.0f} %"
    return ", ".join(filter(None, (f"{status.state}{progress}", status.message, status.result)))
