"""The trajectory builder: runs the evaluation, decodes its steps, pairs, and says what was left out."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.core.candidates import Candidate, Turn, group_turns
from nat_dpo_pipeline.core.pairs import PairingRules, PreferencePair, SkipReason, pair_turn
from nat_dpo_pipeline.core.selection import Selection, SelectionRules
from nat_dpo_pipeline.core.strategies import Strategy
from nat_dpo_pipeline.dataset.files import append_json
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError
from nat_dpo_pipeline.generation.record import read_summary
from nat_dpo_pipeline.plugin.builder_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.plugin.nat_api import (
    Config,
    EvalInputItem,
    EvaluationRunConfig,
    EvaluationRunOutput,
    FinetuneConfig,
    IntermediateStepType,
    Trajectory,
    TrajectoryBuilder,
    TrajectoryCollection,
)
from nat_dpo_pipeline.plugin.nat_logs import evaluation_errors
from nat_dpo_pipeline.plugin.pairing import rules_of, selection_rules_of, singles_in
from nat_dpo_pipeline.plugin.steps import Refusal, decode_candidates
from nat_dpo_pipeline.plugin.trajectories import build_trajectories, collector_paused
from nat_dpo_pipeline.report.summary import CollectionReport, describe

logger = logging.getLogger(__name__)

_PROBLEMS_TOLD = 5


class DPOTrajectoryBuilder(TrajectoryBuilder):
    """Collects scored candidates from an evaluation of the workflow and pairs them."""

    def __init__(self, trajectory_builder_config: DPOTrajectoryBuilderConfig) -> None:
        super().__init__(trajectory_builder_config=trajectory_builder_config)
        self.config = trajectory_builder_config
        #: Evaluations under way, by run id; trainers cancel what is left in it.
        self.evaluation_runs: dict[str, asyncio.Task[EvaluationRunOutput]] = {}
        self.reports: dict[str, CollectionReport] = {}
        #: What was alone in its turn, by run id, where `require_multiple_candidates` is false: trajectories hold pairs.
        self.singles: dict[str, list[Candidate]] = {}
        self._errors: list[str] = []

    async def run_eval(self) -> EvaluationRunOutput:
        """Evaluate the workflow on the dataset; raises whatever the evaluation raises."""
        from nat.plugins.eval.eval_callbacks import EvalCallbackManager
        from nat.plugins.eval.runtime.evaluate import EvaluationRun

        from nat_dpo_pipeline.plugin.evaluation_items import EvaluationItems

        callbacks = EvalCallbackManager()
        callbacks.register(EvaluationItems())  # type: ignore[arg-type]  # NAT calls the methods that there are
        with evaluation_errors() as self._errors:
            config = evaluation_config(self.run_config)
            return await EvaluationRun(config=config, callback_manager=callbacks).run_and_evaluate()

    async def start_run(self, run_id: str, meta: dict[str, Any] | None = None) -> None:
        """Start an evaluation. Raises ValueError when one of this id is under way; one that ended can be repeated."""
        running = self.evaluation_runs.get(run_id)
        if running is not None and not running.done():
            raise ValueError(f"run {run_id!r} is in progress already")
        # An evaluation set that cannot be read shall not cost an evaluation.
        selection_rules_of(self.config)
        self.evaluation_runs[run_id] = asyncio.create_task(self.run_eval(), name=f"dpo-eval-{run_id}")

    async def finalize(self, run_id: str, meta: dict[str, Any] | None = None) -> TrajectoryCollection:
        """Wait for the evaluation and pair its candidates, grouped by example.

        Raises ValueError for a run that was not started, CollectionError when the evaluation failed.
        """
        if run_id not in self.evaluation_runs:
            raise ValueError(f"run {run_id!r} was not started")
        try:
            evaluation = await self.evaluation_runs[run_id]
        except Exception as error:
            raise CollectionError(f"the evaluation of run {run_id!r} failed: {_one_line(error)}") from error
        finally:
            self.evaluation_runs.pop(run_id, None)
        with collector_paused():
            collected = collect(evaluation, self.config)
        if not evaluation.eval_input.eval_input_items:
            collected.problems.append(f"the dataset {_dataset_of(self.run_config)!r} holds no rows")
        endpoint = _endpoint_of(self.run_config)
        if endpoint and not collected.candidates:
            collected.problems.append(
                f"the endpoint {endpoint!r} delivered no candidates: is it up, and the right one?"
            )
        report = collected.report(evaluation, self._errors)
        self.reports[run_id] = report
        self.singles[run_id] = collected.singles
        _log(run_id, report)
        self._keep_failures(run_id, collected.failures)
        # Not validated: the trajectories were just built, and validation would copy every list of them.
        return TrajectoryCollection.model_construct(trajectories=collected.trajectories, run_id=run_id)

    def log_progress(self, run_id: str, metrics: dict[str, Any], output_dir: str | None = None) -> None:
        """Append one line on the run to `dpo_trajectory_builder_<run_id>.jsonl` in `output_dir`."""
        folder = Path(output_dir or self.run_config.output_dir)
        report = self.reports.get(run_id)
        entry = {
            "timestamp": datetime.now(UTC).isoformat(),
            "run_id": run_id,
            "config": self.config.model_dump(mode="json", exclude={"reward"}),
            "collected": report.to_json() if report else None,
            "skipped": report.skips() if report else None,
            **metrics,
        }
        append_json(folder / f"dpo_trajectory_builder_{run_id}.jsonl", entry)

    def _keep_failures(self, run_id: str, failures: list[Mapping[str, object]]) -> None:
        if not failures:
            return
        path = Path(self.run_config.output_dir) / f"failures_{run_id}.jsonl"
        try:
            append_json(path, *failures)
        except OSError as error:
            logger.warning("%d failures could not be written to %s: %s", len(failures), path, error)
        else:
            logger.info("what failed, with reasons and replies: %s", path)


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


@dataclass(slots=True)
class Collected:
    """What the items of an evaluation held, and the trajectories made of it."""

    trajectories: list[list[Trajectory]] = field(default_factory=list)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    singles: list[Candidate] = field(default_factory=list)
    candidates: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    turns: int = 0
    turns_split: int = 0
    turns_with_one_candidate: int = 0
    empty_examples: int = 0
    generated: Counter[str] = field(default_factory=Counter)
    failed: dict[str, Counter[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failures: list[Mapping[str, object]] = field(default_factory=list)

    def report(self, evaluation: EvaluationRunOutput, errors: Iterable[str]) -> CollectionReport:
        return CollectionReport(
            examples=len(evaluation.eval_input.eval_input_items),
            examples_without_candidates=self.empty_examples,
            interrupted_runs=int(evaluation.workflow_interrupted),
            generated=self.generated,
            failed=self.failed,
            candidates=self.candidates,
            refused=Counter(refusal.reason for refusal in self.refusals),
            turns=self.turns,
            turns_split=self.turns_split,
            turns_with_one_candidate=self.turns_with_one_candidate,
            pairs=sum(map(len, self.trajectories)),
            skipped=Counter({str(reason): count for reason, count in self.skipped.items() if count}),
            problems=_first_of(tuple(dict.fromkeys((*self.problems, *errors)))),
        )


def collect(evaluation: EvaluationRunOutput, config: DPOTrajectoryBuilderConfig) -> Collected:
    """Decode, group and pair every item, in order. Items without an id are told apart by their position."""
    collected = Collected()
    rules, selecting = rules_of(config), selection_rules_of(config)
    at_once = selecting.is_empty
    undecided: list[list[list[PreferencePair]]] = []
    for position, item in enumerate(evaluation.eval_input.eval_input_items):
        example_id = str(item.id) if item.id not in ("", None) else f"row-{position}"
        decoded = decode_candidates(item.trajectory, config.ttc_step_name, example_id)
        grouping = group_turns(decoded.candidates)
        collected.singles.extend(singles_in(grouping.turns, config))
        paired = _paired(grouping.turns, rules, config, collected)
        if at_once:
            _add(paired, rules, config, collected)
        else:
            undecided.append(list(paired))
        collected.candidates += len(decoded.candidates)
        collected.refusals.extend(decoded.refusals)
        collected.turns_split += grouping.split
        failures = _read_summary(item.output_obj, example_id, collected)
        if not decoded.candidates:
            collected.empty_examples += 1
            collected.problems.extend(str(failure["detail"]) for failure in failures[:1])
            _note_other_steps(item, config.ttc_step_name, collected)
    for selected in _selected(undecided, selecting, collected):
        _add(selected, rules, config, collected)
    collected.failures.extend(asdict(refusal) for refusal in collected.refusals)
    return collected


def _paired(
    turns: Iterable[Turn], rules: PairingRules, config: DPOTrajectoryBuilderConfig, collected: Collected
) -> Iterator[list[PreferencePair]]:
    """The pairs of each turn."""
    for turn in turns:
        collected.turns += 1
        if len(turn.candidates) == 1 and config.require_multiple_candidates:
            collected.turns_with_one_candidate += 1
        yield pair_turn(turn, rules, collected.skipped)


def _selected(
    examples: list[list[list[PreferencePair]]], selecting: SelectionRules, collected: Collected
) -> Iterator[Iterator[list[PreferencePair]]]:
    """What is kept of the pairs of each turn of each example, when all are seen together."""
    selection = Selection.of(selecting, (pair for turns in examples for pairs in turns for pair in pairs))
    collected.skipped.update(selection.skipped)
    reasons = selection.reasons()
    for turns in examples:
        yield ([pair for pair in pairs if next(reasons) is None] for pairs in turns)


def _add(
    paired: Iterable[list[PreferencePair]],
    rules: PairingRules,
    config: DPOTrajectoryBuilderConfig,
    collected: Collected,
) -> None:
    """Add the trajectories of one example; its pairs come by turn."""
    trajectories: list[Trajectory] = []
    for pairs in paired:
        trajectories += build_trajectories(
            pairs,
            exhaustive=rules.applied_strategy is not Strategy.BEST_VS_WORST,
            reward_from_score_diff=config.reward_from_score_diff,
        )
    if trajectories:
        collected.trajectories.append(trajectories)


def _first_of(problems: tuple[str, ...]) -> tuple[str, ...]:
    more = len(problems) - _PROBLEMS_TOLD
    return (*problems[:_PROBLEMS_TOLD], f"and {more} more") if more > 0 else problems


def _note_other_steps(item: EvalInputItem, step_name: str, collected: Collected) -> None:
    names = {step.payload.name for step in item.trajectory if step.event_type is IntermediateStepType.TTC_END}
    others = sorted(map(repr, names))
    if others and step_name not in names:
        found = ", ".join(others)
        collected.problems.append(f"no step is called {step_name!r}, but there are {found}: set ttc_step_name")


def _read_summary(output: object, example_id: str, collected: Collected) -> list[Mapping[str, object]]:
    """Add what the package's own workflows say of themselves in their JSON output; returns the failures in it."""
    summary = read_summary(output)
    if summary is None:
        return []
    failures: list[Mapping[str, object]] = [{"example_id": example_id, **failure} for failure in summary["failures"]]
    collected.generated.update({name: count for name, count in summary.items() if type(count) is int})
    for step, reasons in summary["skipped"].items():
        collected.failed.setdefault(step, Counter()).update(reasons)
    collected.failures.extend(failures)
    if summary["stopped"]:
        collected.problems.append(summary["stopped"])
    return failures


def _log(run_id: str, report: CollectionReport) -> None:
    if not report.candidates:
        logger.warning("run %s collected no candidates from %d examples", run_id, report.examples)
    elif not report.pairs:
        logger.warning("run %s collected %d candidates but no pair", run_id, report.candidates)
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
