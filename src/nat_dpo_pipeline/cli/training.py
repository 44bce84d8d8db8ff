"""What `nat dpo status` and `nat dpo resume` do."""

import asyncio
from pathlib import Path

from nat_dpo_pipeline.cli.saying import say
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.strict import type_name
from nat_dpo_pipeline.plugin.backend_adapter import JOB_ID, BackendTrainerAdapter
from nat_dpo_pipeline.plugin.backends import backend_of
from nat_dpo_pipeline.plugin.generation import load_any
from nat_dpo_pipeline.plugin.interrupts import Interrupted
from nat_dpo_pipeline.plugin.nat_api import TrainingJobStatus, TrainingStatusEnum
from nat_dpo_pipeline.plugin.saved_job import SavedJob, read_saved_job
from nat_dpo_pipeline.plugin.trainer import update_metrics
from nat_dpo_pipeline.plugin.trainer_config import JobAdapterConfig

_INTERRUPTED = 130
_ENDED_BADLY = (TrainingStatusEnum.FAILED, TrainingStatusEnum.CANCELED)


def run_status(run_dir: Path, config_file: Path | None) -> int:
    """The exit code. Raises DPOPipelineError for what a user can mend."""
    saved = read_saved_job(run_dir)
    status = asyncio.run(_adapter(saved, config_file).status(saved.ref))
    _say(status)
    return int(status.status in _ENDED_BADLY)


def run_resume(run_dir: Path, config_file: Path | None) -> int:
    """The exit code, 130 when interrupted. Raises DPOPipelineError for what a user can mend."""
    try:
        saved = read_saved_job(run_dir)
        status = asyncio.run(_adapter(saved, config_file).resume(saved.ref))
        update_metrics(run_dir, status)
    except Interrupted as error:
        say(f"{error}; the same command goes on.", err=True)
        return _INTERRUPTED
    _say(status)
    return int(status.status in _ENDED_BADLY)


def _adapter(saved: SavedJob, config_file: Path | None) -> BackendTrainerAdapter:
    config = saved.config() if config_file is None else _configured(saved, config_file)
    return BackendTrainerAdapter(config, backend_of(config))


def _configured(saved: SavedJob, path: Path) -> JobAdapterConfig:
    loaded = load_any(path)
    found = loaded.trainer_adapters.get(loaded.finetuning.trainer_adapter or "")
    if not isinstance(found, JobAdapterConfig) or type_name(type(found)) != saved.adapter:
        raise ConfigurationError(f"{str(path)!r} does not train with {saved.adapter}, which submitted the job")
    return found


def _say(status: TrainingJobStatus) -> None:
    facts = status.metadata or {}
    progress = "" if status.progress is None else f" {status.progress:.0f} %"
    parts = (f"{status.status.value}{progress}", status.message, facts.get("result"))
    say(f"{status.backend} job {facts.get(JOB_ID)}: {', '.join(str(part) for part in parts if part)}")
    for name, value in facts.get("metrics", {}).items():
        say(f"  {name.replace('_', ' ')}  {value:.4g}")
