"""In a time of the tests' own: an hour of waiting takes no time, and is measured to the second."""

import asyncio
import logging
from typing import Any

import pytest

from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.backend import Backend, Job, JobState, JobStatus, StatusUnknown
from nat_dpo_pipeline.trainers.settings import Patience
from nat_dpo_pipeline.trainers.waiting import wait
from tests import own_time
from tests.trainers.scripted_backend import RUNNING, SUCCEEDED, Outcome, ScriptedBackend

JOB = Job("scripted", "job-1", "run")
AWAY = StatusUnknown("no answer")
PATIENCE = Patience(poll_interval=10, unreachable=300, longest_pause=60)


class TimedBackend(ScriptedBackend):
    """Remembers when it was asked."""

    def __init__(self, *outcomes: Outcome, **others: Any) -> None:
        super().__init__(outcomes, **others)
        self.times: list[float] = []

    async def status(self, job: Job) -> JobStatus:
        self.times.append(round(asyncio.get_running_loop().time(), 3))
        return await super().status(job)


def test_a_job_is_asked_for_until_it_has_ended() -> None:
    backend, told = TimedBackend(JobStatus(JobState.PENDING), RUNNING, SUCCEEDED), []
    assert own_time.run(wait(backend, JOB, PATIENCE, on_status=told.append)) == SUCCEEDED
    assert [status.state for status in told] == [JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED]
    assert backend.times == [0, 10, 20]
    assert backend.cancelled == []


@pytest.mark.parametrize("state", [state for state in JobState if state.is_final])
def test_a_job_that_ended_badly_is_no_error_of_waiting(state: JobState) -> None:
    status = JobStatus(state, "so it ended")
    assert own_time.run(wait(ScriptedBackend([status]), JOB, PATIENCE)) == status


def test_a_job_is_cancelled_when_its_time_is_up() -> None:
    backend = TimedBackend(RUNNING)
    with pytest.raises(TrainingError, match=r"^job job-1 was not done after 25 s and was cancelled$"):
        own_time.run(wait(backend, JOB, Patience(poll_interval=10, timeout=25)))
    assert backend.times == [0, 10, 20]
    assert backend.cancelled == [JOB]


async def _refuse() -> None:
    raise TrainingError("not allowed")


async def _lack_a_key() -> None:
    raise ConfigurationError("no key")


async def _hang() -> None:
    await asyncio.sleep(10**6)


@pytest.mark.parametrize(
    ("cancelling", "reason"), [(_refuse, "not allowed"), (_lack_a_key, "no key"), (_hang, "no answer")]
)
def test_a_job_that_cannot_be_cancelled_is_told(cancelling: Any, reason: str) -> None:
    backend = ScriptedBackend([RUNNING], cancelling=cancelling)
    with pytest.raises(
        TrainingError, match=rf"after 25 s and could not be cancelled: {reason}; it may still be going on"
    ):
        own_time.run(wait(backend, JOB, Patience(timeout=25)))


def test_a_job_is_cancelled_when_waiting_for_it_is(caplog: pytest.LogCaptureFixture) -> None:
    backend = TimedBackend(RUNNING)
    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError, match="job job-1 was cancelled"):
        own_time.run(_interrupted(backend, after=15))
    assert backend.times == [0, 10]
    assert backend.cancelled == [JOB]
    assert caplog.messages == ["job job-1 was cancelled"]


def test_an_interrupted_job_that_cannot_be_cancelled_is_told(caplog: pytest.LogCaptureFixture) -> None:
    backend = ScriptedBackend([RUNNING], cancelling=_refuse)
    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
        own_time.run(_interrupted(backend, after=15))
    assert "could not be cancelled: not allowed; it may still be going on" in caplog.text


async def _interrupted(backend: Backend, after: float) -> None:
    waiting = asyncio.create_task(wait(backend, JOB, PATIENCE))
    await asyncio.sleep(after)
    waiting.cancel()
    await waiting


def test_a_back_end_that_fails_is_asked_less_often_and_then_as_before() -> None:
    backend = TimedBackend(RUNNING, *[AWAY] * 4, RUNNING, AWAY, SUCCEEDED)
    assert own_time.run(wait(backend, JOB, PATIENCE)) == SUCCEEDED
    pauses = [later - earlier for earlier, later in zip(backend.times, backend.times[1:], strict=False)]
    assert pauses == [10, 20, 40, 60, 60, 10, 20]


def test_a_back_end_that_cannot_be_asked_for_too_long_is_given_up_and_its_job_is_not_cancelled() -> None:
    backend, told = TimedBackend(RUNNING, AWAY), []
    with pytest.raises(StatusUnknown, match=r"job job-1 could not be asked for 300 s.*going on: no answer"):
        own_time.run(wait(backend, JOB, PATIENCE, on_status=told.append))
    assert backend.times == [0, 10, 30, 70, 130, 190, 250, 310]
    assert backend.cancelled == []
    assert told == [RUNNING]


def test_an_outage_lasts_from_the_first_failure_and_not_from_the_last_answer() -> None:
    backend = TimedBackend(RUNNING, AWAY, SUCCEEDED)
    assert own_time.run(wait(backend, JOB, Patience(poll_interval=3600, unreachable=900))) == SUCCEEDED
    assert backend.times == [0, 3600, 7200]


def test_a_failure_that_will_not_pass_ends_the_waiting_at_once() -> None:
    backend = TimedBackend(RUNNING, TrainingError("no such job"))
    with pytest.raises(TrainingError, match=r"^no such job$"):
        own_time.run(wait(backend, JOB, PATIENCE))
    assert backend.times == [0, 10]
    assert backend.cancelled == []


def test_a_time_out_of_the_back_ends_own_is_not_taken_for_the_end_of_the_jobs_time() -> None:
    backend = TimedBackend(TimeoutError("a bug"))
    with pytest.raises(TimeoutError, match="a bug"):
        own_time.run(wait(backend, JOB, PATIENCE))
    assert backend.cancelled == []
