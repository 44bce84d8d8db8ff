"""What a worker hears and says while it trains: signals to stop, and its status."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping
from types import FrameType

from nat_dpo_pipeline.trainers.backend import JobState
from nat_dpo_pipeline.trainers.trl.job import JobFolder, WorkerStatus

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SECONDS_BETWEEN_WORDS = 0.5


class Stopped(BaseException):
    """The worker was asked to stop. No Exception, so that no library takes it for a failure of its own."""


class StopSignal:
    """SIGTERM and SIGINT: outside of the steps they end the work at once, between them after the current step."""

    def __init__(self) -> None:
        self.is_requested = False
        self._waits_for_step = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._asked)
        signal.signal(signal.SIGINT, self._asked)

    def training_begins(self) -> None:
        """From here on a step is finished and a checkpoint written first."""
        self._waits_for_step = True

    def training_ended(self) -> None:
        """Raises Stopped when it ended because that was asked for."""
        self._waits_for_step = False
        if self.is_requested:
            raise Stopped

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        # Linux tells the death of a parent once for each of its threads: only the first signal counts.
        if self.is_requested:
            return
        self.is_requested = True
        if not self._waits_for_step:
            raise Stopped


class Parent:
    """The process that a worker must not outlive; None for one that was started by hand."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid

    def bind(self) -> None:
        """Be sent SIGTERM when the parent dies, where the system does that. Raises Stopped when it is dead already."""
        if self._pid is None:
            return
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if self.is_gone():
            raise Stopped

    def is_gone(self) -> bool:
        """A process whose parent died has another one; looked at after every step where no signal comes."""
        return self._pid is not None and os.getppid() != self._pid


class Reporter:
    """The worker's status file."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._said_at = 0.0

    def phase(self, name: str) -> None:
        """What is being done before and after the steps, whose length nobody knows."""
        self._say(WorkerStatus(JobState.RUNNING, name, os.getpid()))

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Where the training is; said twice a second at most."""
        if time.monotonic() - self._said_at >= _SECONDS_BETWEEN_WORDS or step == steps:
            progress = 100.0 * step / max(steps, 1)
            message = f"step {step} of {steps}{_told(metrics)}"
            self._say(WorkerStatus(JobState.RUNNING, message, os.getpid(), progress, metrics))

    def end(self, state: JobState, message: str, metrics: Mapping[str, float] | None = None) -> None:
        """The last word; `message` is folded to one line."""
        progress = 100.0 if state is JobState.SUCCEEDED else None
        self._say(WorkerStatus(state, " ".join(message.split()), os.getpid(), progress, metrics or {}))

    def _say(self, status: WorkerStatus) -> None:
        status.write(self._folder)
        self._said_at = time.monotonic()


def _told(metrics: Mapping[str, float]) -> str:
    words = {"loss": "loss", "eval_accuracy": "held-out accuracy"}
    return "".join(f", {word} {metrics[name]:.2f}" for name, word in words.items() if name in metrics)
