"""The back end over stand-ins for the worker: real processes that do not train."""

import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from nat_dpo_pipeline.core.json_values import numbers
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.errors import ConfigurationError, OutputError, TrainingError
from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus, TrainingData
from nat_dpo_pipeline.trainers.settings import Patience
from nat_dpo_pipeline.trainers.trl import local, worker
from nat_dpo_pipeline.trainers.trl.control import Parent, Stopped, StopSignal
from nat_dpo_pipeline.trainers.trl.job import (
    JobFolder,
    TrlJob,
    WorkerStatus,
    append_metrics,
    forget_metrics_after,
    read_job,
    read_status,
)
from nat_dpo_pipeline.trainers.trl.local import TrlBackend, check_model
from nat_dpo_pipeline.trainers.trl.settings import Device, TrlSettings
from nat_dpo_pipeline.trainers.waiting import wait
from tests.waiting import ticking

QUICK = Patience(poll_interval=0.005)
ROWS = {
    SplitName.TRAIN: [PreferenceRow("Why?", "Because.", "No."), PreferenceRow("How?", "So.", "Not so.")],
    SplitName.VALIDATION: [PreferenceRow("When?", "Now.", "Never.")],
}
#: What every stand-in begins with: `say` replaces the status as the worker does.
_SAY = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def say(state, message, progress=None, metrics={}):
    new = folder / "status.new"
    new.write_text(json.dumps({"state": state, "message": message, "pid": os.getpid(), "progress": progress,
                               "metrics": metrics}))
    new.replace(folder / "status.json")
"""
TRAINS = """
say("running", "step 1 of 2", 50.0, {"loss": 0.5})
while not (folder / "go").exists():
    time.sleep(0.005)
(folder / "result.json").write_text("{}")
(folder / "checkpoints").mkdir()
say("succeeded", "learned: everything", 100.0, {"held_out_accuracy_after": 1.0})
"""
FAILS = 'say("failed", "the loss is nan at step 3")\nsys.exit(1)'
KILLED = 'say("running", "step 1 of 9")\nprint("last words", flush=True)\nos.kill(os.getpid(), signal.SIGKILL)'
CRASHES = 'sys.exit("Traceback: no room")'
STOPS = """
def stop(*_):
    say("canceled", "stopped")
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
say("running", "step 1 of 9")
signal.pause()
"""
STUBBORN = 'signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay("running", "step 1 of 9")\nsignal.pause()'


@pytest.fixture
async def make_backend(tmp_path: Path) -> AsyncIterator[Callable[..., TrlBackend]]:
    """A back end whose worker is a script; what a worker said last it said before its end, which is waited for."""
    made: list[TrlBackend] = []

    def make(script: str, **options: Any) -> TrlBackend:
        file = tmp_path / "worker.py"
        file.write_text(_SAY + script)
        settings = TrlSettings(model="tiny", output_dir=tmp_path / "jobs")
        made.append(TrlBackend(settings, worker=(sys.executable, str(file)), **options))
        return made[-1]

    yield make
    for backend in made:
        for process in backend._processes.values():  # noqa: SLF001 - nobody else has them
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _data(run_id: str = "run") -> TrainingData:
    return TrainingData(run_id, ROWS, seed=3)


def _let_go_on(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "run" / "go").touch()


async def _until_running(backend: TrlBackend, job: Job) -> JobStatus:
    while (status := await backend.status(job)).state is JobState.PENDING:  # noqa: ASYNC110 - a process sets no event
        await asyncio.sleep(0.005)
    return status


async def test_a_job_is_trained(make_backend: Callable[..., TrlBackend], tmp_path: Path) -> None:
    backend, told = make_backend(TRAINS), list[JobStatus]()

    def tell(status: JobStatus) -> None:
        told.append(status)
        if status.state is JobState.RUNNING:
            _let_go_on(tmp_path)

    job = await backend.submit(_data())
    status = await wait(backend, job, QUICK, on_status=tell)
    folder = JobFolder(tmp_path / "jobs" / "run")
    assert status == JobStatus(
        JobState.SUCCEEDED, "learned: everything", 100.0, {"held_out_accuracy_after": 1.0}, str(folder.model)
    )
    assert JobStatus(JobState.RUNNING, "step 1 of 2", 50.0, {"loss": 0.5}) in told
    assert [len(folder.rows(side).read_text().splitlines()) for side in SplitName] == [2, 1]
    assert read_job(folder) == TrlJob("run", 3, TrlSettings(model="tiny", output_dir=tmp_path / "jobs"))
    await backend.cleanup(job)
    assert not folder.checkpoints.exists()
    assert await backend.status(job) == status, "a job that is over is known by its files"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (FAILS, "the loss is nan at step 3"),
        (
            KILLED,
            (
                "the worker was killed by SIGKILL, as the system does where memory runs out: "
                "try a smaller batch_size or max_length, or lora; its last line: last words"
            ),
        ),
        (CRASHES, "the worker ended with exit code 1; its last line: Traceback: no room"),
        ("sys.exit(3)", "the worker was stopped before it began"),
        ("", "the worker ended with exit code 0"),
    ],
    ids=["fails", "killed", "crashes", "stopped", "ends"],
)
async def test_how_a_worker_ended_is_told(script: str, message: str, make_backend: Callable[..., TrlBackend]) -> None:
    backend = make_backend(script)
    job = await backend.submit(_data())
    assert await wait(backend, job, QUICK) == JobStatus(JobState.FAILED, message)
    await backend.cancel(job)


async def test_cancelling_lets_the_worker_stop(make_backend: Callable[..., TrlBackend]) -> None:
    backend = make_backend(STOPS)
    job = await backend.submit(_data())
    await _until_running(backend, job)
    await backend.cancel(job)
    assert await backend.status(job) == JobStatus(JobState.CANCELED, "stopped")


async def test_a_job_that_was_stopped_goes_on_in_another_process(
    make_backend: Callable[..., TrlBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "check_packages", lambda: None)
    first = make_backend(STOPS)
    job = await first.submit(_data())
    await _until_running(first, job)
    await first.cancel(job)
    second = make_backend(TRAINS)
    await second.resume(job)
    assert (await second.status(job)).state in (JobState.PENDING, JobState.RUNNING)
    _let_go_on(tmp_path)
    assert (await wait(second, job, QUICK)).message == "learned: everything"


async def test_a_job_that_goes_on_is_left_alone(make_backend: Callable[..., TrlBackend]) -> None:
    backend = make_backend(STOPS)
    job = await backend.submit(_data())
    await _until_running(backend, job)
    await backend.resume(job)
    assert (await backend.status(job)).message == "step 1 of 9"
    await backend.cancel(job)


async def test_a_worker_that_does_not_stop_is_killed(make_backend: Callable[..., TrlBackend]) -> None:
    backend = make_backend(STUBBORN, seconds_to_stop=0.2)
    job = await backend.submit(_data())
    await _until_running(backend, job)
    await backend.cancel(job)
    status = await backend.status(job)
    assert status.state is JobState.FAILED
    assert "killed by SIGKILL" in (status.message or "")


async def test_another_process_finds_and_cancels_the_job(make_backend: Callable[..., TrlBackend]) -> None:
    first = make_backend(
        "from filelock import FileLock\nlock = FileLock(folder / '.worker.lock')\nlock.acquire()\n" + STOPS
    )
    job = await first.submit(_data())
    await _until_running(first, job)
    second = make_backend("")
    assert (await second.status(job)).message == "step 1 of 9"
    await second.cancel(job)
    assert (await second.status(job)).state is JobState.CANCELED


async def test_another_process_sees_that_the_worker_is_gone(make_backend: Callable[..., TrlBackend]) -> None:
    first = make_backend(KILLED)
    job = await first.submit(_data())
    await wait(first, job, QUICK)
    status = await make_backend("").status(job)
    assert status == JobStatus(JobState.FAILED, "the worker is gone without a last word; its last line: last words")


async def test_the_event_loop_goes_on_while_a_job_is_submitted_and_looked_at(
    make_backend: Callable[..., TrlBackend], tmp_path: Path
) -> None:
    """Nothing is awaited that takes turns with the loop only at its end: a ticking task is never starved."""
    backend = make_backend(TRAINS)
    async with ticking() as ticks:
        job = await backend.submit(_data())
        during_submit = ticks.count
        await backend.status(job)
        assert 0 < during_submit < ticks.count
    _let_go_on(tmp_path)
    await wait(backend, job, QUICK)


async def test_a_folder_is_never_used_again(make_backend: Callable[..., TrlBackend]) -> None:
    backend = make_backend(FAILS)
    await wait(backend, await backend.submit(_data()), QUICK)
    with pytest.raises(TrainingError, match=r"jobs/run' exists: a job's folder is never used again"):
        await backend.submit(_data())


async def test_a_worker_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    backend = TrlBackend(TrlSettings(model="tiny", output_dir=tmp_path), worker=(str(tmp_path / "missing"),))
    with pytest.raises(TrainingError, match="the worker cannot be started"):
        await backend.submit(_data())


async def test_a_job_without_a_folder_is_refused(make_backend: Callable[..., TrlBackend]) -> None:
    with pytest.raises(TrainingError, match="job x has no folder here: None"):
        await make_backend("").status(Job("trl", "x", "x"))


@pytest.mark.parametrize("run_id", ["../out", "/tmp/out", "a/b", "", "..", "a\0b"])
async def test_a_run_id_that_leaves_the_folder_of_jobs_is_refused(
    make_backend: Callable[..., TrlBackend], tmp_path: Path, run_id: str
) -> None:
    with pytest.raises(ConfigurationError, match="is not the name of a file"):
        await make_backend(TRAINS).submit(_data(run_id))
    assert not (tmp_path / "jobs").exists() or list((tmp_path / "jobs").iterdir()) == []


async def test_a_saved_job_that_names_another_folder_is_neither_asked_nor_resumed_nor_cleaned_up(
    make_backend: Callable[..., TrlBackend], tmp_path: Path
) -> None:
    backend = make_backend(TRAINS)
    (tmp_path / "mine" / "checkpoints").mkdir(parents=True)
    WorkerStatus(JobState.SUCCEEDED, "done").write(JobFolder(tmp_path / "mine"))
    for name, path in (("run", tmp_path / "mine"), ("mine", tmp_path / "mine"), ("..", tmp_path / "mine" / "..")):
        job = Job("trl", name, name, {"folder": str(path)})
        for asking in (backend.status, backend.resume, backend.cancel, backend.cleanup):
            with pytest.raises(TrainingError, match="is not the folder of job"):
                await asking(job)
    assert (tmp_path / "mine" / "checkpoints").is_dir()


async def test_check_names_what_is_missing(
    make_backend: Callable[..., TrlBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nat_dpo_pipeline.trainers.trl.local.find_spec", lambda name: None if name == "trl" else name)
    with pytest.raises(ConfigurationError, match=r"needs trl: install .* 'nat-dpo-pipeline\[train\]'"):
        await make_backend("").check()
    monkeypatch.setattr("nat_dpo_pipeline.trainers.trl.local.find_spec", lambda name: name)
    await make_backend("").check()
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="cannot write to"):
        await TrlBackend(TrlSettings(model="tiny", output_dir=tmp_path / "taken")).check()


@pytest.mark.parametrize("model", ["tiny", "gpt2", "Qwen/Qwen2.5-0.5B-Instruct"])
def test_names_on_the_hub_are_not_looked_up(model: str) -> None:
    check_model(model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./missing", "is no folder here and no name"),
        ("/no/such/folder", "is no folder here and no name"),
        ("a/b/c", "is no folder here and no name"),
        ("~/model", "is no folder here and no name"),
    ],
)
def test_a_folder_that_is_not_there_is_refused(model: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_model(model)


def test_a_folder_must_hold_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no config\.json"):
        check_model(str(tmp_path))
    (tmp_path / "config.json").touch()
    check_model(str(tmp_path))
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(ConfigurationError, match="is an adapter: merge it"):
        check_model(str(tmp_path))


# The worker, without what trains.


def _job_folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path)
    TrlJob("run", 0, TrlSettings(model="tiny", output_dir=tmp_path)).write(folder)
    return folder


def _started(folder: Path, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "nat_dpo_pipeline.trainers.trl.worker", str(folder), *arguments)


async def test_a_worker_whose_parent_is_gone_does_nothing(tmp_path: Path) -> None:
    _job_folder(tmp_path)
    process = await asyncio.create_subprocess_exec(*_started(tmp_path, "--parent", str(os.getpid() + 1)))
    assert await process.wait() == 3
    status = read_status(JobFolder(tmp_path))
    assert status is not None
    assert status.state is JobState.CANCELED


async def test_a_second_worker_leaves_the_first_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_SECONDS_FOR_THE_LOCK", 0.05)
    with FileLock(_job_folder(tmp_path).lock):
        assert await asyncio.to_thread(worker.main, [str(tmp_path)]) == 1
    assert read_status(JobFolder(tmp_path)) is None


async def test_a_folder_without_a_job_fails_in_one_line(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(*_started(tmp_path), stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 1
    status = read_status(JobFolder(tmp_path))
    assert status is not None
    assert status.state is JobState.FAILED
    assert "job.json' cannot be read" in status.message


def test_threads_and_gpus_are_set_before_torch_is_imported(tmp_path: Path) -> None:
    settings = TrlSettings(model="tiny", output_dir=tmp_path, num_threads=3)
    assert worker.environment_of(settings, {"CUDA_VISIBLE_DEVICES": "2,3"})["CUDA_VISIBLE_DEVICES"] == "2"
    assert worker.environment_of(settings, {})["CUDA_VISIBLE_DEVICES"] == "0"
    assert worker.environment_of(settings, {})["OMP_NUM_THREADS"] == "3"
    on_cpu = TrlSettings(model="tiny", output_dir=tmp_path, device=Device.CPU)
    assert worker.environment_of(on_cpu, {"CUDA_VISIBLE_DEVICES": "2"})["CUDA_VISIBLE_DEVICES"] == ""


def test_only_the_first_signal_counts_and_between_steps_it_waits() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        stop = StopSignal()
        stop.listen()
        stop.training_begins()
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_requested
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stopped):
            stop.training_ended()
        early = StopSignal()
        early.listen()
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_a_worker_started_by_hand_has_no_parent_to_lose() -> None:
    assert not Parent(None).is_gone()
    assert not Parent(os.getppid()).is_gone()
    assert Parent(os.getpid()).is_gone()


def test_learning_curves_go_back_to_the_checkpoint(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    forget_metrics_after(folder, 0)
    for step in (1, 10, 20):
        append_metrics(folder, step, {"loss": 0.5})
    with folder.metrics.open("a") as file:
        file.write('{"step": 2')
    forget_metrics_after(folder, 10)
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [1, 10]


def test_what_is_no_number_is_left_out_of_the_learning_curves() -> None:
    """In fp16 the first steps are usual cases of that: Infinity and NaN are no JSON, and cost the line."""
    logged = {
        "loss": 0.69,
        "grad_norm": math.nan,
        "learning_rate": 1,
        "rewards/margins": math.inf,
        "note": "warming up",
    }
    assert numbers(logged) == {"loss": 0.69, "learning_rate": 1.0}


def test_what_a_library_computed_is_a_number() -> None:
    logged = {"loss": np.array(0.5), "grad_norm": np.float32(2.0), "rewards/margins": np.array(math.nan)}
    assert numbers(logged) == {"loss": 0.5, "grad_norm": 2.0}


def test_a_status_that_is_none_is_told(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    WorkerStatus(JobState.RUNNING, "step 1").write(folder)
    assert read_status(folder) == WorkerStatus(JobState.RUNNING, "step 1")
    for text in (
        "{",
        "[]",
        '{"state": "odd", "message": ""}',
        "{}",
        '{"state": "running", "message": "", "metrics": 1}',
    ):
        folder.status.write_text(text)
        with pytest.raises(TrainingError, match=r"status\.json"):
            read_status(folder)
