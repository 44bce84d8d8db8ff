"""Trainer adapters: what becomes of the trajectories that a trainer submits."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.dataset.formats import DatasetRow, SplitName
from nat_dpo_pipeline.dataset.formats.rows import single_row
from nat_dpo_pipeline.dataset.writer import Provenance, WrittenDataset, check_target, write_dataset
from nat_dpo_pipeline.errors import ConfigurationError, OutputError, TrainingError
from nat_dpo_pipeline.plugin.finetuning.progress import append_progress
from nat_dpo_pipeline.plugin.finetuning.submissions import PairSubmission, by_side, held_out_prompts
from nat_dpo_pipeline.plugin.finetuning_config import DatasetTrainerAdapterConfig
from nat_dpo_pipeline.plugin.nat_api import (
    FinetuneConfig,
    TrainerAdapter,
    TrainingJobRef,
    TrainingJobStatus,
    TrainingStatusEnum,
    TrajectoryCollection,
)
from nat_dpo_pipeline.plugin.provenance import configuration_of

logger = logging.getLogger(__name__)

_BACKEND = "dataset"


class DatasetTrainerAdapter(TrainerAdapter):
    """Writes the submitted pairs as a dataset; its job is complete when `submit` returns."""

    def __init__(self, adapter_config: DatasetTrainerAdapterConfig) -> None:
        super().__init__(adapter_config)
        self.config = adapter_config

    async def initialize(self, run_config: FinetuneConfig) -> None:
        """Raises OutputError or ConfigurationError when the dataset could not be written, before the work for it."""
        await super().initialize(run_config)
        check_target(self.config.output_dir, self.config.target())

    async def is_healthy(self) -> bool:
        try:
            check_target(self.config.output_dir, self.config.target())
        except (OutputError, ConfigurationError):
            return False
        return True

    async def submit(self, trajectories: TrajectoryCollection) -> TrainingJobRef:
        """Write the dataset. Raises OutputError, and TrainingError when there is nothing to write."""
        config = self.config
        submission = PairSubmission.of(trajectories)
        good = config.single_label_score
        singles = () if good is None else tuple(single_row(one, label=one.score >= good) for one in submission.singles)
        held_out = held_out_prompts(
            submission.pairs, config.validation_fraction, config.seed, stratify=config.stratify, singles=singles
        )
        rows: list[DatasetRow] = [*(pair.row for pair in submission.pairs), *singles]
        splits = by_side(rows, held_out)
        if not splits[SplitName.TRAIN]:
            raise TrainingError("there is no preference pair to write")
        provenance = self._provenance(submission)
        written = await asyncio.to_thread(write_dataset, config.output_dir, splits, provenance, config.target())
        _log(written)
        return TrainingJobRef(run_id=trajectories.run_id, backend=_BACKEND, metadata=_locations(written))

    async def status(self, ref: TrainingJobRef) -> TrainingJobStatus:
        """COMPLETED when the dataset of this job is on disk, else FAILED."""
        written = await asyncio.to_thread(_exists, ref)
        return TrainingJobStatus(
            run_id=ref.run_id,
            backend=_BACKEND,
            status=TrainingStatusEnum.COMPLETED if written else TrainingStatusEnum.FAILED,
            progress=100.0 if written else None,
            message=f"dataset in {self.config.output_dir}" if written else "the dataset's manifest.json is not there",
            metadata=ref.metadata,
        )

    async def wait_until_complete(self, ref: TrainingJobRef, poll_interval: float = 10.0) -> TrainingJobStatus:
        return await self.status(ref)

    def log_progress(self, ref: TrainingJobRef, metrics: dict[str, Any], output_dir: str | None = None) -> None:
        """Append one line on the job to `dataset_trainer_adapter_<run_id>.jsonl` in `output_dir`."""
        entry = {"run_id": ref.run_id, "job": ref.metadata, **metrics}
        append_progress(f"dataset_trainer_adapter_{ref.run_id}.jsonl", entry, output_dir, self.run_config)

    def _provenance(self, submission: PairSubmission) -> Provenance:
        configuration = configuration_of(self.run_config, self.config)
        if submission.report is None:
            return Provenance(self.config.seed, configuration, skipped={})
        return Provenance(
            seed=self.config.seed if submission.seed is None else submission.seed,
            configuration=configuration,
            skipped={**submission.report.skips(), "trainer": dict(submission.dropped)},
            report=submission.report.to_json(),
        )


def _exists(ref: TrainingJobRef) -> bool:
    return Path((ref.metadata or {}).get("manifest", "")).is_file()


def _locations(written: WrittenDataset) -> dict[str, object]:
    files = {file.path: str(written.folder / file.path) for file in (*written.files, *written.others)}
    return {"output_dir": str(written.folder), "manifest": str(written.manifest), "files": files}


def _log(written: WrittenDataset) -> None:
    lines = [f"{written.folder / file.path}  {file.rows} pairs" for file in written.files]
    lines += [f"{written.folder / file.path}  {file.rows} rows" for file in written.others if file.rows]
    lines += [f"left out of {stage}: {listed(reasons)}" for stage, reasons in written.refused.items()]
    lines.append(str(written.manifest))
    lines += [f"to train with {file.format}, in {written.folder}: {file.in_short}" for file in written.training]
    logger.info("files written:\n  %s", "\n  ".join(lines))
