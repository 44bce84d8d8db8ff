"""The back end and its worker, for real. Runs where trl is installed: `make training`."""

import asyncio
import json
import math
import os
import pickle
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs torch and trl: make training")

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus
from nat_dpo_pipeline.trainers.settings import Patience
from nat_dpo_pipeline.trainers.trl.checkpoints import newest_valid, step_of
from nat_dpo_pipeline.trainers.trl.data import read_rows, tokenized
from nat_dpo_pipeline.trainers.trl.job import JobFolder, read_status
from nat_dpo_pipeline.trainers.trl.local import TrlBackend, folder_of
from nat_dpo_pipeline.trainers.trl.scoring import pair_scores
from nat_dpo_pipeline.trainers.trl.settings import Precision
from nat_dpo_pipeline.trainers.trl.verdict import preference
from nat_dpo_pipeline.trainers.waiting import wait
from tests.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore")
QUICK = Patience(poll_interval=0.2)
STEPS = 18
WORKER = (sys.executable, "-m", "nat_dpo_pipeline.trainers.trl.worker")


@dataclass(frozen=True)
class Trained:
    folder: JobFolder
    status: JobStatus

    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder.model / "model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(data: Callable[..., Any], settings: Callable[..., Any], tmp_path_factory: Any) -> Trained:
    async def train() -> Trained:
        backend = TrlBackend(settings(tmp_path_factory.mktemp("undisturbed")))
        await backend.check()
        job = await backend.submit(data())
        status = await wait(backend, job, QUICK)
        assert status.state is JobState.SUCCEEDED, folder_of(job).log.read_text()
        return Trained(folder_of(job), status)

    return asyncio.run(train())


def test_a_model_learns_the_preference(undisturbed: Trained) -> None:
    found = undisturbed.status.metrics
    assert undisturbed.status.result == str(undisturbed.folder.model)
    assert (undisturbed.status.message or "").startswith("learned: held-out preference accuracy ")
    assert found["held_out_accuracy_before"] <= 0.75
    assert found["held_out_accuracy_after"] == 1.0
    assert found["held_out_margin_after"] > found["held_out_margin_before"] + 5
    assert (found["held_out_pairs"], found["held_out_prompts"]) == (8, 8)


def test_what_is_written_of_it(undisturbed: Trained) -> None:
    result = json.loads(undisturbed.folder.result.read_text())
    assert (result["sentence"], result["learned"]) == (undisturbed.status.message, True)
    assert result["figures"] == dict(undisturbed.status.metrics)
    assert result["training"] == {
        "pairs": 27,
        "dropped_for_length": 0,
        "alike_within_max_length": 0,
        "cut_to_max_length": 0,
        "held_out_dropped_for_length": 0,
        "steps": STEPS,
        "first_loss": pytest.approx(math.log(2), abs=1e-3),
    }
    lines = [json.loads(line) for line in undisturbed.folder.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert {"rewards/accuracies", "rewards/margins"} <= lines[0].keys()
    assert [line["step"] for line in lines if "eval_accuracy" in line] == [3, 6, 9, 12, 15, 18]


def test_the_model_that_was_written_is_the_one_that_learned(undisturbed: Trained) -> None:
    folder = undisturbed.folder
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    model = AutoModelForCausalLM.from_pretrained(folder.model)
    held_out = tokenized(read_rows(folder.rows(SplitName.VALIDATION)), tokenizer, 64)
    found = preference(pair_scores(model, held_out.pairs, Precision.FP32))
    assert found is not None
    assert found.margin == pytest.approx(undisturbed.status.metrics["held_out_margin_after"], abs=1e-3)
    assert (folder.model / "model.safetensors").stat().st_mode & 0o044, "others may read it as they may the folder"


async def test_stopped_killed_and_damaged_it_ends_with_the_same_weights(
    undisturbed: Trained, data: Callable[..., Any], settings: Callable[..., Any], tmp_path: Path
) -> None:
    backend = TrlBackend(settings(tmp_path, num_threads=1))
    job = await backend.submit(data())
    folder = folder_of(job)
    await until(lambda: _step(folder) >= 1, _is_undecided(folder))
    await backend.cancel(job)
    assert (await backend.status(job)).state is JobState.CANCELED
    stopped_at = newest_valid(folder.checkpoints)
    assert stopped_at is not None
    assert step_of(stopped_at) < STEPS, "it was not stopped in time to show anything"

    async with _started(*WORKER, str(folder.path), stdout=subprocess.DEVNULL, stderr=2) as worker:
        await until(lambda: _newest(folder) > step_of(stopped_at), _is_at_work(worker))
        worker.kill()
        assert await worker.wait() == -signal.SIGKILL
    later = TrlBackend(settings(tmp_path))
    told = await later.status(job)
    assert told.state is JobState.FAILED
    assert "the worker is gone without a last word" in (told.message or "")
    newest = folder.checkpoints / f"checkpoint-{_newest(folder)}"
    with (newest / "model.safetensors").open("r+b") as file:
        file.truncate(1000)

    async with _started(*WORKER, str(folder.path), stdout=subprocess.PIPE) as again:
        output, _ = await again.communicate()
    assert again.returncode == 0
    assert f"{newest.name} is passed over and removed: model.safetensors is damaged" in output.decode()
    ended = Trained(folder, await later.status(job))
    assert ended.status.state is JobState.SUCCEEDED
    assert ended.status.metrics == undisturbed.status.metrics
    expected, found = undisturbed.weights(), ended.weights()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    curve = [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines() if '"loss"' in line]
    assert curve == list(range(1, STEPS + 1))


PARENT = """
import asyncio, pickle, sys
from nat_dpo_pipeline.trainers.trl.local import TrlBackend
async def main():
    settings, data = pickle.load(open(sys.argv[1], "rb"))
    await TrlBackend(settings).submit(data)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is a signal on Linux alone")
async def test_the_worker_does_not_outlive_its_parent(
    undisturbed: Trained, data: Callable[..., Any], settings: Callable[..., Any], tmp_path: Path
) -> None:
    given = settings(tmp_path, model=str(undisturbed.folder.tiny_model), epochs=500.0)
    (tmp_path / "given").write_bytes(pickle.dumps((given, data())))
    folder = JobFolder(tmp_path / "run")
    async with _started(sys.executable, "-c", PARENT, str(tmp_path / "given")) as parent:
        await until(lambda: _step(folder) >= 1, _is_undecided(folder))
        parent.send_signal(signal.SIGKILL)
    backend, job = TrlBackend(given), Job("trl", "run", "run", {"folder": str(folder.path)})
    status = await wait(backend, job, QUICK)
    assert status.state is JobState.CANCELED
    assert newest_valid(folder.checkpoints) is not None
    said = read_status(folder)
    assert said is not None
    await until(lambda: not _is_alive(said.pid))


async def test_a_killed_worker_is_told(
    undisturbed: Trained, data: Callable[..., Any], settings: Callable[..., Any], tmp_path: Path
) -> None:
    backend = TrlBackend(settings(tmp_path, model=str(undisturbed.folder.tiny_model)))
    job = await backend.submit(data())
    await until(lambda: read_status(folder_of(job)) is not None)
    said = read_status(folder_of(job))
    assert said is not None
    os.kill(said.pid, signal.SIGKILL)
    status = await wait(backend, job, QUICK)
    assert status.state is JobState.FAILED
    assert (status.message or "").startswith("the worker was killed by SIGKILL")


def _step(folder: JobFolder) -> int:
    said = read_status(folder) if folder.status.exists() else None
    words = said.message.split() if said is not None else []
    return int(words[1]) if words[:1] == ["step"] else 0


def _newest(folder: JobFolder) -> int:
    found = newest_valid(folder.checkpoints)
    return step_of(found) if found else 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def _started(*command: str, **options: Any) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _is_at_work(process: Process) -> Callable[[], bool]:
    return lambda: process.returncode is None


def _is_undecided(folder: JobFolder) -> Callable[[], bool]:
    """Whether the worker of the folder has not said yet that it ended."""

    def is_undecided() -> bool:
        said = read_status(folder) if folder.status.exists() else None
        return said is None or not said.state.is_final

    return is_undecided
