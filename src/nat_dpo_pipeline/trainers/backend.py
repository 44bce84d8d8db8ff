"""What a training back end is. Nothing here knows how one trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.errors import TrainingError


class JobState(StrEnum):
    """Where a job stands. What a service says and we do not know is RUNNING."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was submitted.

    `id` is the back end's own name for it. `facts` are JSON values without secrets; with them another process finds the
    job, its files and its result again.
    """

    backend: str
    id: str
    run_id: str
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a back end says of a job: None is what it does not say.

    `progress` is in percent. `message` is one line: the phase of a running job, why a failed one failed. `result` is
    what came of a job that succeeded: a folder, or a model's name. `facts` are JSON values, as those of a job.
    """

    state: JobState
    message: str | None = None
    progress: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    result: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The pairs of one submission, by side of the split; no prompt is on two sides. `run_id` is new for each."""

    run_id: str
    splits: Mapping[SplitName, Sequence[PreferenceRow]]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.splits.get(SplitName.TRAIN):
            raise TrainingError("there is no preference pair to train on")


class StatusUnknown(TrainingError):  # noqa: N818 - it reads as what is the case
    """The back end could not be asked now; the job itself goes on, and asking again may succeed."""


class Backend(Protocol):
    """Something that trains. All methods are quick or await; none blocks the event loop.

    Raises TrainingError or ConfigurationError, each with one line that says what to do.
    """

    #: In a word, for messages and for `Job.backend`.
    name: str

    async def check(self) -> None:
        """Raise when a job could not be submitted as things are; called before the work for one is done."""
        ...

    async def submit(self, data: TrainingData) -> Job:
        """Start a job, once: a call that may have started one is not sent again without looking for it."""
        ...

    async def status(self, job: Job) -> JobStatus:
        """Raises StatusUnknown when asking failed in a way that may pass."""
        ...

    async def cancel(self, job: Job) -> None:
        """Ask for the end of a job; one that ended already is no error."""
        ...

    async def resume(self, job: Job) -> None:
        """Let a job that was stopped or failed go on from where it was. Raises TrainingError where that cannot be."""
        ...

    async def cleanup(self, job: Job) -> None:
        """Let go of a job that is not waited for any more: remove what nobody wants of one that has ended, as partial
        files or an upload, and leave alone one that may go on."""
        ...
