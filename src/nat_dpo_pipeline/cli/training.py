"""The parts that `nat dpo status` and `nat dpo resume` share."""

from collections.abc import Iterator
from pathlib import Path

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.plugin.commands.generation import load_any
from nat_dpo_pipeline.plugin.finetuning.job_adapter import JOB_ID, BackendTrainerAdapter
from nat_dpo_pipeline.plugin.finetuning.saved_job import SavedJob
from nat_dpo_pipeline.plugin.finetuning_config import JobAdapterConfig
from nat_dpo_pipeline.plugin.nat_api import TrainingJobStatus, TrainingStatusEnum
from nat_dpo_pipeline.strict import type_name


def adapter_of(saved: SavedJob, config_file: Path | None) -> BackendTrainerAdapter:
    """Return the adapter that submitted the job, configured as then or by a file. Raises ConfigurationError."""
    config = saved.config() if config_file is None else _configured(saved, config_file)
    return BackendTrainerAdapter(config, config.backend())


def _configured(saved: SavedJob, path: Path) -> JobAdapterConfig:
    loaded = load_any(path)
    found = loaded.trainer_adapters.get(loaded.finetuning.trainer_adapter or "")
    if not isinstance(found, JobAdapterConfig) or type_name(type(found)) != saved.adapter:
        raise ConfigurationError(f"{str(path)!r} does not train with {saved.adapter}, which submitted the job")
    return found


def has_failed(status: TrainingJobStatus) -> bool:
    """Return True for a job that failed or was cancelled."""
    return status.status in (TrainingStatusEnum.FAILED, TrainingStatusEnum.CANCELED)


def job_lines(status: TrainingJobStatus) -> Iterator[str]:
    """Return the summary of a job: its state and its metrics."""
    facts = status.metadata or {}
    progress = "" if status.progress is None else f" {status.progress:.0f} %"
    parts = (f"{status.status.value}{progress}", status.message, facts.get("result"))
    yield f"{status.backend} job {facts.get(JOB_ID)}: {', '.join(str(part) for part in parts if part)}"
    for name, value in facts.get("metrics", {}).items():
        yield f"  {name.replace('_', ' ')}  {value:.4g}"
