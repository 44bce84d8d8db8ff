"""Local training with TRL: a worker process a job, told and heard through files, never in this process."""

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from nat_dpo_pipeline.dataset.files import check_file_name, check_writable
from nat_dpo_pipeline.dataset.writer import Provenance, write_dataset
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.backend import Job, JobState, JobStatus, TrainingData
from nat_dpo_pipeline.trainers.trl.job import STOPPED, JobFolder, TrlJob, WorkerStatus, read_status
from nat_dpo_pipeline.trainers.trl.settings import TINY, TrlSettings

_PACKAGES = ("torch", "trl", "transformers", "peft", "datasets", "accelerate")
_WORKER = (sys.executable, "-m", "nat_dpo_pipeline.trainers.trl.worker")
_FOLDER = "folder"
_SECONDS_TO_FINISH_A_STEP = 45.0
_SECONDS_BETWEEN_LOOKS = 0.2
#: Between a worker's last word and its end torch is unloaded.
_SECONDS_TO_END = 30.0
_LOG_END = 4096


class TrlBackend:
    """Trains on this machine. `worker` is the command that a job's folder is appended to."""

    name = "trl"

    def __init__(
        self,
        settings: TrlSettings,
        *,
        worker: Sequence[str] = _WORKER,
        seconds_to_stop: float = _SECONDS_TO_FINISH_A_STEP,
    ) -> None:
        self._settings = settings
        self._worker = tuple(worker)
        self._seconds_to_stop = seconds_to_stop
        self._processes: dict[str, Process] = {}

    async def check(self) -> None:
        """Raises ConfigurationError without the packages or the model, OutputError when nothing can be written."""
        check_packages()
        check_model(self._settings.model)
        await asyncio.to_thread(check_writable, self._settings.output_dir)

    async def submit(self, data: TrainingData) -> Job:
        """Write the pairs and start the worker. The job's folder is named after the run and must be new."""
        folder = JobFolder(self._settings.output_dir.absolute() / check_file_name(data.run_id))
        await asyncio.to_thread(self._prepare, folder, data)
        self._processes[data.run_id] = await self._start(folder)
        return Job(self.name, data.run_id, data.run_id, {_FOLDER: str(folder.path)})

    async def status(self, job: Job) -> JobStatus:
        """Of a worker that ended without a last word this says how, and the last line of its log."""
        folder = folder_of(job)
        # In this order: a worker may say its last word and end between the two.
        has_ended = await self._has_ended(job)
        said = await asyncio.to_thread(read_status, folder)
        if said is not None and said.state.is_final:
            return _final_status(said, folder)
        if not has_ended:
            return _running_status(said)
        process = self._processes.get(job.id)
        code = None if process is None else process.returncode
        return JobStatus(JobState.FAILED, await asyncio.to_thread(_told_end, folder, code))

    async def cancel(self, job: Job) -> None:
        """Let the worker finish its step and write a checkpoint; end it where that takes too long."""
        if await self._has_ended(job):
            return
        await self._signal(job, signal.SIGTERM)
        try:
            async with asyncio.timeout(self._seconds_to_stop):
                await self._end_of(job)
        except TimeoutError:
            await self._signal(job, signal.SIGKILL)
            await self._end_of(job)

    async def resume(self, job: Job) -> None:
        """Start a worker anew, which goes on from the newest checkpoint that is whole."""
        if not await self._has_ended(job):
            return
        folder = folder_of(job)
        check_packages()
        await asyncio.to_thread(WorkerStatus(JobState.PENDING, "starting again").write, folder)
        self._processes[job.id] = await self._start(folder)

    async def cleanup(self, job: Job) -> None:
        """Remove the checkpoints of a training that succeeded; of any other they are what it can go on from."""
        folder = folder_of(job)
        said = await asyncio.to_thread(read_status, folder)
        if said is None or not said.state.is_final:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_END):
                await self._end_of(job)
        if said.state is JobState.SUCCEEDED:
            await asyncio.to_thread(shutil.rmtree, folder.checkpoints, ignore_errors=True)

    def _prepare(self, folder: JobFolder, data: TrainingData) -> None:
        try:
            folder.path.mkdir(parents=True)
        except FileExistsError as error:
            raise TrainingError(f"{str(folder.path)!r} exists: a job's folder is never used again") from error
        write_dataset(folder.dataset, data.splits, Provenance(data.seed, {}, {}))
        TrlJob(data.run_id, data.seed, self._settings).write(folder)

    async def _start(self, folder: JobFolder) -> Process:
        with folder.log.open("ab") as log:
            try:
                return await asyncio.create_subprocess_exec(
                    *self._worker,
                    str(folder.path),
                    "--parent",
                    str(os.getpid()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C in a terminal reaches the whole group: here it is this process that cancels.
                    start_new_session=True,
                )
            except OSError as error:
                raise TrainingError(f"the worker cannot be started: {error}") from error

    async def _has_ended(self, job: Job) -> bool:
        """Of a worker that another process started its lock tells, which no dead process holds."""
        process = self._processes.get(job.id)
        if process is not None:
            return process.returncode is not None
        return await asyncio.to_thread(_is_free, folder_of(job).lock)

    async def _end_of(self, job: Job) -> None:
        if process := self._processes.get(job.id):
            await process.wait()
        while not await self._has_ended(job):  # noqa: ASYNC110 - the end of another's process sets no event
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)

    async def _signal(self, job: Job, number: signal.Signals) -> None:
        process = self._processes.get(job.id)
        if process is not None:
            if process.returncode is None:
                process.send_signal(number)
            return
        said = await asyncio.to_thread(read_status, folder_of(job))
        if said is not None and said.pid:
            try:
                os.kill(said.pid, number)
            except ProcessLookupError:
                return
            except PermissionError as error:
                raise TrainingError(f"worker {said.pid} belongs to another user: it was not stopped") from error


def check_packages() -> None:
    """Raise ConfigurationError when what the worker imports is not installed; nothing is imported for that."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"training here needs {', '.join(missing)}: install the extra with pip install 'nat-dpo-pipeline[train]'"
        )


def check_model(model: str) -> None:
    """Raise ConfigurationError for a folder without a model, and for what is neither a folder nor a name on the hub."""
    folder = Path(model)
    if model == TINY:
        return
    if folder.is_dir():
        if (folder / "adapter_config.json").exists():
            raise ConfigurationError(f"model {model!r} is an adapter: merge it into its model first, and name that")
        if not (folder / "config.json").exists():
            raise ConfigurationError(f"model {model!r} is a folder without a model: it has no config.json")
    elif not _is_hub_name(model):
        raise ConfigurationError(
            f"model {model!r} is no folder here and no name on the Hugging Face hub (owner/name): correct it, or use "
            f"{TINY!r} to try the training out"
        )


def folder_of(job: Job) -> JobFolder:
    """The folder that a job's facts name. Raises TrainingError."""
    path = job.facts.get(_FOLDER)
    if not isinstance(path, str) or not Path(path).is_dir():
        raise TrainingError(f"job {job.id} has no folder here: {path!r}")
    folder = JobFolder(Path(path))
    # What a saved job names may be resumed, and its checkpoints removed.
    if folder.path.name != job.id or not folder.job.is_file():
        raise TrainingError(f"{path!r} is not the folder of job {job.id!r:.80}: it is not named so, or has no job.json")
    return folder


def _is_hub_name(model: str) -> bool:
    parts = model.split("/")
    return len(parts) <= 2 and all(part and part.strip(".") and not part.startswith(("~", "$")) for part in parts)


def _is_free(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False


def _final_status(said: WorkerStatus, folder: JobFolder) -> JobStatus:
    result = str(folder.model) if said.state is JobState.SUCCEEDED else None
    return JobStatus(said.state, said.message, said.progress, said.metrics, result)


def _running_status(said: WorkerStatus | None) -> JobStatus:
    if said is None:
        return JobStatus(JobState.PENDING, "starting")
    return JobStatus(JobState.RUNNING, said.message, said.progress, said.metrics)


def _told_end(folder: JobFolder, code: int | None) -> str:
    """How a worker ended that said nothing of it."""
    if code is None:
        how = "the worker is gone without a last word"
    elif code < 0:
        how = f"the worker was killed by {_signal_name(-code)}"
        if -code == signal.SIGKILL:
            how += ", as the system does where memory runs out: try a smaller batch_size or max_length, or lora"
    elif code == STOPPED:
        how = "the worker was stopped before it began"
    else:
        how = f"the worker ended with exit code {code}"
    last = _last_line(folder.log)
    return f"{how}; its last line: {last}" if last else how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_END))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "")
