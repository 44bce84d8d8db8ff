"""A back end whose jobs go as they are told."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus, TrainingData

#: What a back end says of a job, or how asking it fails.
Outcome = JobStatus | Exception
RUNNING = JobStatus(JobState.RUNNING)
SUCCEEDED = JobStatus(JobState.SUCCEEDED, result="the-model")


class ScriptedBackend:
    """Says one outcome after the other, and the last one for ever; `refuses` is what keeps it from taking a job."""

    name = "scripted"

    def __init__(
        self,
        outcomes: Iterable[Outcome] = (SUCCEEDED,),
        *,
        refuses: Exception | None = None,
        cancelling: Callable[[], Awaitable[None]] | None = None,
        cleaning_up: Exception | None = None,
    ) -> None:
        self._outcomes = list(outcomes)
        self._refuses = refuses
        self._cancelling = cancelling
        self._cleaning_up = cleaning_up
        self.asked: list[Job] = []
        self.was_asked = asyncio.Event()
        self.submitted: list[TrainingData] = []
        self.cancelled: list[Job] = []
        self.cleaned_up: list[Job] = []
        self.resumed: list[Job] = []

    async def check(self) -> None:
        if self._refuses is not None:
            raise self._refuses

    async def submit(self, data: TrainingData) -> Job:
        self.submitted.append(data)
        return Job(self.name, f"job-{len(self.submitted)}", data.run_id, {"place": "here"})

    async def status(self, job: Job) -> JobStatus:
        self.asked.append(job)
        self.was_asked.set()
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def cancel(self, job: Job) -> None:
        self.cancelled.append(job)
        if self._cancelling is not None:
            await self._cancelling()

    async def resume(self, job: Job) -> None:
        self.resumed.append(job)

    async def cleanup(self, job: Job) -> None:
        self.cleaned_up.append(job)
        if self._cleaning_up is not None:
            raise self._cleaning_up
