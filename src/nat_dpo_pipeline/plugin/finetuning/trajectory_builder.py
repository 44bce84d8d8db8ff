"""The trajectory builder: runs the evaluation or reads files, pairs, and says what was left out."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.dataset.files import append_json, check_file_name
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError
from nat_dpo_pipeline.plugin.finetuning.collecting import Collected, collect
from nat_dpo_pipeline.plugin.finetuning.progress import append_progress
from nat_dpo_pipeline.plugin.finetuning.submissions import ReportedTrajectories
from nat_dpo_pipeline.plugin.finetuning.trajectories import collector_paused
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.plugin.nat_api import (
    Config,
    EvaluationRunConfig,
    EvaluationRunOutput,
    FinetuneConfig,
    TrajectoryBuilder,
)
from nat_dpo_pipeline.plugin.nat_logs import evaluation_errors
from nat_dpo_pipeline.plugin.recorded import collect_in_a_thread, recorded_files
from nat_dpo_pipeline.report.summary import CollectionReport, describe

logger = logging.getLogger(__name__)

#: So many pairs are some gigabyte of trajectories.
MANY_PAIRS = 1_000_000


class DPOTrajectoryBuilder(TrajectoryBuilder):
    """Collects scored candidates from an evaluation of the workflow, or from files, and pairs them."""

    def __init__(self, trajectory_builder_config: DPOTrajectoryBuilderConfig) -> None:
        super().__init__(trajectory_builder_config=trajectory_builder_config)
        self.config = trajectory_builder_config
        #: Evaluations under way (or files being read), by run id; trainers cancel what is left in it.
        self.evaluation_runs: dict[str, asyncio.Task[EvaluationRunOutput] | asyncio.Task[Collected]] = {}
        self.reports: dict[str, CollectionReport] = {}
        self._errors: list[str] = []

    async def run_eval(self) -> EvaluationRunOutput:
        """Evaluate the workflow on the dataset; raises whatever the evaluation raises."""
        from nat.plugins.eval.eval_callbacks import EvalCallbackManager
        from nat.plugins.eval.runtime.evaluate import EvaluationRun

        from nat_dpo_pipeline.plugin.telemetry.evaluation_items import EvaluationItems

        callbacks = EvalCallbackManager()
        callbacks.register(EvaluationItems())  # type: ignore[arg-type]  # NAT calls the methods that there are
        with evaluation_errors() as self._errors:
            config = evaluation_config(self.run_config)
            return await EvaluationRun(config=config, callback_manager=callbacks).run_and_evaluate()

    async def start_run(self, run_id: str, meta: dict[str, Any] | None = None) -> None:
        """Start an evaluation, or reading the files of `source`.

        Raises ValueError when a run of this id is under way; one that ended can be repeated. Raises InputError when
        the evaluation set of the configuration or a file of `source` is not there, and ConfigurationError for an id
        that cannot be part of a file's name.
        """
        check_file_name(_failures_name(run_id))
        running = self.evaluation_runs.get(run_id)
        if running is not None and not running.done():
            raise ValueError(f"run {run_id!r} is in progress already")
        # An evaluation set that cannot be read shall not cost an evaluation.
        self.config.selection_rules()
        if self.config.source:
            reading = collect_in_a_thread(recorded_files(self.config), self.config)
            self.evaluation_runs[run_id] = asyncio.create_task(reading, name=f"dpo-read-{run_id}")
        else:
            self.evaluation_runs[run_id] = asyncio.create_task(self.run_eval(), name=f"dpo-eval-{run_id}")

    async def finalize(self, run_id: str, meta: dict[str, Any] | None = None) -> ReportedTrajectories:
        """Wait for the evaluation and pair its candidates, grouped by example.

        Raises ValueError for a run that was not started, CollectionError when the evaluation failed or the files of
        `source` cannot be read.
        """
        if run_id not in self.evaluation_runs:
            raise ValueError(f"run {run_id!r} was not started")
        try:
            found = await self.evaluation_runs[run_id]
        except Exception as error:
            what = "reading the source" if self.config.source else "the evaluation"
            raise CollectionError(f"{what} of run {run_id!r} failed: {_one_line(error)}") from error
        finally:
            self.evaluation_runs.pop(run_id, None)
        if isinstance(found, Collected):
            collected, report = found, found.report(examples=0)
        else:
            with collector_paused():
                collected = collect(found, self.config)
            report = self._report(found, collected)
        self.reports[run_id] = report
        _log(run_id, report)
        self._keep_failures(run_id, collected.failures)
        # Not validated: the trajectories were just built, and validation would copy every list of them.
        return ReportedTrajectories.model_construct(
            trajectories=collected.trajectories, run_id=run_id, report=report, singles=collected.singles
        )

    def log_progress(self, run_id: str, metrics: dict[str, Any], output_dir: str | None = None) -> None:
        """Append one line on the run to `dpo_trajectory_builder_<run_id>.jsonl` in `output_dir`."""
        report = self.reports.get(run_id)
        entry = {
            "timestamp": datetime.now(UTC).isoformat(),
            "run_id": run_id,
            "config": self.config.model_dump(mode="json", exclude={"reward"}),
            "collected": report.to_json() if report else None,
            "skipped": report.skips() if report else None,
            **metrics,
        }
        append_progress(f"dpo_trajectory_builder_{run_id}.jsonl", entry, output_dir, self.run_config)

    def _report(self, evaluation: EvaluationRunOutput, collected: Collected) -> CollectionReport:
        items = evaluation.eval_input.eval_input_items
        if not items:
            collected.problems.append(f"the dataset {_dataset_of(self.run_config)!r} holds no rows")
        endpoint = _endpoint_of(self.run_config)
        if endpoint and not collected.candidates:
            collected.problems.append(
                f"the endpoint {endpoint!r} delivered no candidates: is it up, and the right one?"
            )
        interrupted = bool(evaluation.workflow_interrupted)
        return collected.report(examples=len(items), interrupted=interrupted, errors=self._errors)

    def _keep_failures(self, run_id: str, failures: list[Mapping[str, object]]) -> None:
        if not failures:
            return
        path = Path(self.run_config.output_dir) / _failures_name(run_id)
        try:
            append_json(path, *failures)
        except OSError as error:
            logger.warning("%d failures could not be written to %s: %s", len(failures), path, error)
        else:
            logger.info("what failed, with reasons and replies: %s", path)


def _failures_name(run_id: str) -> str:
    return f"failures_{run_id}.jsonl"


def evaluation_config(run_config: FinetuneConfig) -> EvaluationRunConfig:
    """What NAT's own `run_eval` passes on, mended.

    `nat finetune` passes a configuration that contains itself, which overflows the stack when it is logged: the
    evaluation gets a copy without its fine-tuning part (so it does not build trainers either). The overrides are in
    that configuration already, and the dataset must be text.
    """
    run = run_config.run_configuration
    if run is None:
        raise ConfigurationError("the trajectory builder has no run configuration: start it with `nat finetune`")
    config = run.config_file
    if isinstance(config, Config):
        without_training = {
            "finetuning": FinetuneConfig(),
            "trainers": {},
            "trainer_adapters": {},
            "trajectory_builders": {},
        }
        config = config.model_copy(update=without_training)
    return EvaluationRunConfig(
        config_file=config,
        dataset=None if run.dataset is None else str(run.dataset),
        result_json_path=run.result_json_path,
        endpoint=run.endpoint,
        endpoint_timeout=run.endpoint_timeout,
        override=() if isinstance(config, Config) else run.override,
    )


def _endpoint_of(run_config: FinetuneConfig | None) -> str | None:
    run = run_config.run_configuration if run_config else None
    return run.endpoint if run else None


def _dataset_of(run_config: FinetuneConfig | None) -> str:
    run = run_config.run_configuration if run_config else None
    config = run.config_file if run else None
    if run is not None and run.dataset is not None:
        return str(run.dataset)
    dataset = config.eval.general.dataset if isinstance(config, Config) else None
    return str(dataset.file_path) if dataset is not None else "eval.general.dataset"


def _log(run_id: str, report: CollectionReport) -> None:
    if not report.candidates:
        came_from = f"{len(report.files)} files" if report.files else f"{report.examples} examples"
        logger.warning("run %s collected no candidates from %s", run_id, came_from)
    elif not report.pairs:
        logger.warning("run %s collected %d candidates but no pair", run_id, report.candidates)
    if report.pairs > MANY_PAIRS:
        logger.warning(
            "run %s holds %d pairs in memory, as NAT wants them: for so many, record the candidates with "
            "dpo_candidates and pair the files with `nat dpo pairs FILES -o DIR` (docs/scale.md)",
            run_id,
            report.pairs,
        )
    if report.interrupted_runs:
        logger.warning(
            "run %s was interrupted: %d of %d examples delivered no candidates",
            run_id,
            report.examples_without_candidates,
            report.examples,
        )
    elif report.candidates and report.examples_without_candidates:
        logger.warning(
            "run %s lost %d of %d examples: they delivered no candidates",
            run_id,
            report.examples_without_candidates,
            report.examples,
        )
    logger.info("run %s collected:\n  %s", run_id, "\n  ".join(describe(report)))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
