"""The trainer: collect runs, deduplicate, draw, split by prompt, submit once."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.core.messages import Prompt, prompt_key
from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.core.split import deduplicate, is_held_out, sample, validation_prompts
from nat_dpo_pipeline.dataset.files import append_json, check_writable, write_json
from nat_dpo_pipeline.dataset.formats import SplitName, trl_row
from nat_dpo_pipeline.errors import InputError, OutputError, TrainingError
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.plugin.finetuning.progress import append_progress
from nat_dpo_pipeline.plugin.finetuning.submissions import (
    PairSubmission,
    ReportedTrajectories,
    Shorten,
    SubmittedPair,
    decoded,
    pairs_of,
)
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrainerConfig
from nat_dpo_pipeline.plugin.interrupts import Interrupted
from nat_dpo_pipeline.plugin.nat_api import (
    DPOItem,
    FinetuneConfig,
    Trainer,
    TrainingJobRef,
    TrainingJobStatus,
    TrainingStatusEnum,
    Trajectory,
)
from nat_dpo_pipeline.report.summary import CollectionReport, describe, total

logger = logging.getLogger(__name__)

Groups = list[list[Trajectory]]
_METRICS_FILE = "final_metrics.json"
_PROGRESS_FILE = "data_collection_progress.jsonl"


class DPOTrainer(Trainer):
    """Runs the trajectory builder `num_runs` times and submits what it collected to the adapter, once."""

    def __init__(self, trainer_config: DPOTrainerConfig, **_: object) -> None:
        super().__init__(trainer_config)
        self.config = trainer_config
        self._run_id = ""
        self._pairs: list[SubmittedPair] = []
        self._singles: list[Candidate] = []
        self._reports: list[CollectionReport] = []
        self._dropped: Counter[str] = Counter()
        self._runs_ended = 0
        self._job: TrainingJobRef | None = None

    async def initialize(self, run_config: FinetuneConfig) -> None:
        """Prepare builder and adapter. Raises OutputError when the output folders cannot be written to."""
        if run_config.curriculum_learning.enabled:
            logger.warning("curriculum_learning is ignored: preference pairs are submitted once, not by epoch")
        await super().initialize(run_config)
        check_writable(Path(run_config.output_dir))
        self._run_id = f"dpo_{uuid4().hex[:8]}"

    async def run_epoch(  # type: ignore[override]  # no job: NVIDIA's trainer returns None here too
        self, epoch: int, run_id: str
    ) -> None:
        """Collect run number `epoch` (from 0); nothing is submitted yet, so there is no job."""
        collection_id = f"{run_id}_run{epoch}"
        await self.trajectory_builder.start_run(run_id=collection_id)
        collection = await self.trajectory_builder.finalize(run_id=collection_id)
        pairs = decoded(collection, self._shorten())
        self._pairs.extend(pairs)
        self._dropped["no_preference_pair"] += sum(
            _other_items(one) for group in collection.trajectories for one in group
        )
        report = None
        if isinstance(collection, ReportedTrajectories):
            report = collection.report
            self._singles.extend(collection.singles)
        self._reports.append(CollectionReport(pairs=len(pairs)) if report is None else report)
        self.log_progress(epoch, _run_metrics(collection.trajectories))

    async def run(self, num_epochs: int) -> list[TrainingJobStatus]:
        """Collect, submit once, and wait if configured; `num_epochs` counts for nothing, `num_runs` does.

        Raises TrainingError when nothing was collected, the submission failed or the job did not succeed. The metrics
        are written in every case, and pairs that could not be submitted are kept in a file.
        """
        if not self._run_id:
            raise TrainingError("the trainer was not initialized")
        self._start_over()
        try:
            status = await self._collect_and_submit()
        except Interrupted as error:
            self._write_metrics(TrainingStatusEnum.CANCELED, str(error))
            raise
        except Exception as error:
            self._write_metrics(TrainingStatusEnum.FAILED, str(error))
            raise
        except BaseException:
            self._write_metrics(TrainingStatusEnum.CANCELED, "interrupted")
            raise
        self._write_metrics(status.status, status.message)
        if len(self._reports) > 1:
            logger.info("%d runs in total:\n  %s", len(self._reports), "\n  ".join(describe(total(self._reports))))
        if status.status in (TrainingStatusEnum.FAILED, TrainingStatusEnum.CANCELED):
            raise TrainingError(f"training job {status.run_id} {status.status}: {status.message or 'no reason given'}")
        return [status]

    async def get_metrics(self, run_id: str) -> dict[str, Any]:
        """What was collected and dropped; `run_id` is this trainer's only run."""
        return self._metrics()

    async def cleanup(self) -> None:
        """Cancel evaluations that are still under way."""
        for task in getattr(self.trajectory_builder, "evaluation_runs", {}).values():
            task.cancel()
        self._pairs.clear()

    def log_progress(self, epoch: int, metrics: dict[str, Any], output_dir: str | None = None) -> None:
        """Append one line on a collection run to data_collection_progress.jsonl."""
        entry = {"run_number": epoch, "run_id": self._run_id, "timestamp": _now(), **metrics}
        append_progress(_PROGRESS_FILE, entry, output_dir, self.run_config)

    def _start_over(self) -> None:
        self._pairs.clear()
        self._singles.clear()
        self._reports.clear()
        self._dropped.clear()
        self._runs_ended = 0
        self._job = None

    async def _collect_and_submit(self) -> TrainingJobStatus:
        try:
            await self._collect()
            chosen = self._chosen()
            if not (chosen or self._singles):
                raise TrainingError(_nothing_collected(self._reports))
            self._job = await self._submit(chosen)
        except Exception:
            self._rescue()
            raise
        except BaseException:
            logger.warning(
                "interrupted in run %d of %d: of this run nothing is kept but the model calls in the workflow's "
                "journal, if it has one; start the same command again to go on from there",
                self._runs_ended + 1,
                self.config.num_runs,
            )
            self._rescue()
            raise
        if self.config.wait_for_completion:
            return await self.trainer_adapter.wait_until_complete(self._job)
        return TrainingJobStatus(
            run_id=self._run_id,
            backend=self._job.backend,
            status=TrainingStatusEnum.RUNNING,
            message="submitted, not waited for",
            metadata=self._job.metadata,
        )

    async def _collect(self) -> None:
        for number in range(self.config.num_runs):
            try:
                await self.run_epoch(number, self._run_id)
            except Exception as error:
                if not self.config.continue_on_collection_error:
                    raise
                logger.warning("run %d of %d failed and is left out: %s", number + 1, self.config.num_runs, error)
                self._reports.append(CollectionReport(problems=(str(error),)))
            self._runs_ended = number + 1

    def _shorten(self) -> Shorten | None:
        """Return what the adapter's rows do to prompts, if its configuration says so; pairs are told apart by it."""
        shorten: Callable[[], Shorten | None] | None = getattr(self.trainer_adapter.adapter_config, "shorten", None)
        return None if shorten is None else shorten()

    def _chosen(self) -> list[SubmittedPair]:
        chosen = deduplicate(self._pairs, pair_key) if self.config.deduplicate_pairs else list(self._pairs)
        self._dropped["duplicate_pairs"] = len(self._pairs) - len(chosen)
        if self.config.max_pairs is not None:
            drawn = sample(chosen, self.config.max_pairs, self.config.seed)
            self._dropped["over_max_pairs"] = len(chosen) - len(drawn)
            chosen = drawn
        return chosen

    async def _submit(self, chosen: list[SubmittedPair]) -> TrainingJobRef:
        report = total(self._reports)
        # As `nat dpo pairs` does with the same files, which may be too many to know all prompts.
        pairs = split_by_prompt(
            chosen, self.config.validation_fraction, self.config.seed, each_alone=bool(report.files)
        )
        dropped = +self._dropped
        logger.info("submitting %d pairs, left out: %s", len(chosen), listed(dropped) or "nothing")
        submission = PairSubmission.model_construct(
            trajectories=by_example(pair.trajectory for pair in pairs),
            run_id=self._run_id,
            pairs=pairs,
            report=report,
            seed=self.config.seed,
            dropped=dropped,
            singles=tuple(self._singles),
        )
        return await self.trainer_adapter.submit(submission)

    def _rescue(self) -> None:
        # The whole prompts, whatever the adapter keeps of them.
        rows = [pair.row for one in self._pairs for pair in pairs_of(one.trajectory)]
        if not rows:
            return
        path = Path(self.run_config.output_dir) / f"collected_{self._run_id}.jsonl"
        try:
            append_json(path, *map(trl_row, rows))
        except OSError as error:
            logger.warning("the %d pairs that were collected could not be kept in %s: %s", len(rows), path, error)
        else:
            logger.warning("the %d pairs that were collected are kept in %s", len(rows), path)

    def _metrics(self) -> dict[str, Any]:
        report = total(self._reports)
        return {
            "run_id": self._run_id,
            "num_runs": self.config.num_runs,
            "collected": report.to_json(),
            "skipped": {**report.skips(), "trainer": dict(+self._dropped)},
            "job": self._job.metadata if self._job else None,
        }

    def _write_metrics(self, status: TrainingStatusEnum, message: str | None) -> None:
        entry = {"status": status.value, "message": message, "timestamp": _now(), **self._metrics()}
        path = Path(self.run_config.output_dir) / _METRICS_FILE
        try:
            write_json(path, entry)
        except OSError as error:
            # The run's own outcome is worth more than an error about its metrics.
            logger.warning("the metrics could not be written to %s: %s", path, error)


def update_metrics(folder: Path, status: TrainingJobStatus) -> None:
    """Put what became of a job into the metrics of the run that submitted it. Raises OutputError."""
    path = folder / _METRICS_FILE
    outcome = {"status": status.status.value, "message": status.message, "timestamp": _now()}
    try:
        found = parse_json(path.read_bytes()) if path.exists() else {}
        write_json(path, {**found, **outcome})
    except (OSError, InputError, TypeError) as error:
        raise OutputError(f"the metrics could not be written to {str(path)!r}: {error}") from error


def _other_items(trajectory: Trajectory) -> int:
    """How many items of an episode are no preference pairs; an empty episode counts as one."""
    if not trajectory.episode:
        return 1
    return sum(not isinstance(item, DPOItem) for item in trajectory.episode)


def pair_key(pair: SubmittedPair) -> tuple[Prompt, str, str]:
    """Return what is equal for the same pair, to the letter."""
    return pair.row.prompt, pair.row.chosen, pair.row.rejected


def split_by_prompt(
    pairs: Sequence[SubmittedPair], fraction: float, seed: int, *, each_alone: bool = False
) -> list[SubmittedPair]:
    """Return the pairs on their sides of the split; all pairs of a prompt are on one side.

    The share of prompts is exact, unless `each_alone` decides: then a prompt's side follows from its text.
    """
    keys = [prompt_key(pair.row.prompt) for pair in pairs]
    if each_alone:
        held_out = {key for key in set(keys) if is_held_out(key, fraction, seed)}
    else:
        held_out = set(validation_prompts(keys, fraction, seed))
    sides = (SplitName.VALIDATION if key in held_out else SplitName.TRAIN for key in keys)
    return [pair.on(side) for pair, side in zip(pairs, sides, strict=True)]


def by_example(trajectories: Iterable[Trajectory]) -> Groups:
    """Trajectories grouped by their example, in order."""
    groups: dict[object, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault((trajectory.metadata or {}).get("example_id"), []).append(trajectory)
    return list(groups.values())


def _run_metrics(groups: Groups) -> dict[str, object]:
    rewards = [trajectory.reward for group in groups for trajectory in group]
    return {
        "num_trajectories": len(rewards),
        "avg_reward": sum(rewards) / len(rewards) if rewards else None,
        "min_reward": min(rewards, default=None),
        "max_reward": max(rewards, default=None),
    }


def _nothing_collected(reports: Iterable[CollectionReport]) -> str:
    report = total(reports)
    why = list(report.problems)
    why += [f"skipped {stage}: {listed(reasons)}" for stage, reasons in report.skips().items()]
    reason = "; ".join(why) or "is the dataset empty, or does the workflow push no TTC_END steps of the builder's name?"
    return (
        f"no preference pair was collected ({report.examples} examples, {report.candidates} candidates, "
        f"{report.turns} turns): {reason}"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat()
