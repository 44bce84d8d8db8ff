"""The folder of one local training: what the back end and its worker tell each other, as files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.core.candidates import finite_number
from nat_dpo_pipeline.core.json_values import numbers
from nat_dpo_pipeline.dataset.files import append_json, replace_file, write_json
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import TrainingError
from nat_dpo_pipeline.strict import checked
from nat_dpo_pipeline.trainers.backend import JobState
from nat_dpo_pipeline.trainers.trl.settings import TrlSettings

#: How a worker ends that was asked to stop; it left a checkpoint if it had begun to train.
STOPPED = 3


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The paths in the folder of a job."""

    path: Path

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def lock(self) -> Path:
        """Held by the worker as long as it lives."""
        return self.path / ".worker.lock"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tiny_model(self) -> Path:
        return self.path / "tiny_model"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def model(self) -> Path:
        """What came of it; there only when it is whole."""
        return self.path / "model"

    def rows(self, side: SplitName) -> Path:
        """The pairs of a side, in TRL's format."""
        return self.dataset / "trl" / f"{side}.jsonl"


@dataclass(frozen=True, slots=True)
class TrlJob:
    """What a worker is started with."""

    run_id: str
    seed: int
    settings: TrlSettings

    def write(self, folder: JobFolder) -> None:
        values = {"run_id": self.run_id, "seed": self.seed, "settings": self.settings.to_json()}
        write_json(folder.job, values)


def read_job(folder: JobFolder) -> TrlJob:
    """Raises TrainingError when there is no job in the folder, and ConfigurationError for its settings."""
    values = read_json(folder.job)
    try:
        return TrlJob(values["run_id"], values["seed"], checked(TrlSettings, values["settings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{str(folder.job)!r} does not describe a training job: {error}") from error


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker last said of itself; `progress` is in percent and None before the first step."""

    state: JobState
    message: str
    pid: int = 0
    progress: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def write(self, folder: JobFolder) -> None:
        write_json(folder.status, {name: getattr(self, name) for name in self.__slots__})


def read_status(folder: JobFolder) -> WorkerStatus | None:
    """None before the worker said anything. Raises TrainingError when what it said cannot be read."""
    if not folder.status.exists():
        return None
    values = read_json(folder.status)
    try:
        known = {"state": JobState(values["state"]), "metrics": numbers(dict(values.get("metrics", {})))}
        return WorkerStatus(**{**values, **known, "progress": finite_number(values.get("progress"))})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{str(folder.status)!r} is no status of a worker: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises TrainingError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise TrainingError(f"{str(path)!r} is not a JSON object")
    return values


def append_metrics(folder: JobFolder, step: int, values: Mapping[str, float]) -> None:
    """One line a logged step."""
    append_json(folder.metrics, {"step": step, **values})


def forget_metrics_after(folder: JobFolder, step: int) -> None:
    """Take out what a training that goes on from `step` will log again, and a line that was cut off."""
    if not folder.metrics.exists():
        return
    lines = folder.metrics.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if (logged := _step_of(line)) is not None and logged <= step]
    replace_file(folder.metrics, "".join(f"{line}\n" for line in kept).encode())


def _step_of(line: str) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None
