"""What `nat dpo generate` does with its options."""

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nat_dpo_pipeline.cli import telling
from nat_dpo_pipeline.cli.display import watching
from nat_dpo_pipeline.cli.reporting import written_after
from nat_dpo_pipeline.cli.saying import say, say_all
from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError, ModelError
from nat_dpo_pipeline.generation.plan import Plan
from nat_dpo_pipeline.generation.record import Failure, GenerationRecord
from nat_dpo_pipeline.generation.settings import StepName
from nat_dpo_pipeline.plugin.generation import (
    Inputs,
    Outcome,
    RunStatus,
    Watch,
    generate,
    inputs_of,
    load,
    preview,
    preview_workflow,
    previewed,
)
from nat_dpo_pipeline.plugin.nat_api import Config
from nat_dpo_pipeline.plugin.pairing import builder_of
from nat_dpo_pipeline.plugin.planning import plan_of
from nat_dpo_pipeline.plugin.workflow_config import PreferenceDataConfig

_INTERRUPTED = 130
_AGAIN = "The same command goes on from here; nothing that was answered is asked or paid for again."


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """The options of the command, by their names there."""

    config_file: Path
    topics: tuple[str, ...] = ()
    dataset: Path | None = None
    run_dir: Path = Path("runs/generate")
    override: tuple[tuple[str, str], ...] = ()
    preview: bool = False
    dry_run: bool = False
    engine: str = "local"
    workers: int = 2
    address: str | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """A loaded configuration, and what is to be run."""

    config: Config
    workflow: PreferenceDataConfig
    inputs: Inputs
    plan: Plan


def run_generate(options: GenerateOptions) -> int:
    """The exit code: 0 complete, 130 interrupted, else 1. Raises DPOPipelineError for what a user can mend."""
    try:
        return _run(options)
    except KeyboardInterrupt:  # NAT would exit with 1
        # A task that was running when it came logs its traceback once it is collected.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        say("Interrupted at once: what was asked for last may be asked for again.", err=True)
        return _INTERRUPTED


def _run(options: GenerateOptions) -> int:
    job = _job(options)
    if options.dry_run:
        say_all(telling.plan_lines(job.plan))
        return 0
    return _preview(job) if options.preview else _generate(job, options)


def _job(options: GenerateOptions) -> _Job:
    config, workflow = load(options.config_file, options.override)
    inputs = inputs_of(config, options.topics, options.dataset)
    plan = plan_of(config, workflow, inputs)
    if not (plan.inputs.topics or plan.inputs.questions):
        malformed = f": all {plan.inputs.malformed} inputs are malformed" if plan.inputs.malformed else ""
        raise ConfigurationError(f"there is nothing to generate from{malformed}")
    return _Job(config, workflow, inputs, plan)


def _generate(job: _Job, options: GenerateOptions) -> int:
    started = time.monotonic()
    outcome = _generated_on_ray(job, options) if options.engine == "ray" else _generated(job, options.run_dir)
    say_all(_told(outcome, time.monotonic() - started))
    if outcome.error is not None:
        raise outcome.error
    if outcome.status is RunStatus.INTERRUPTED:
        return _INTERRUPTED
    if outcome.record.stopped is not None:
        raise ModelError(outcome.record.stopped)
    if in_vain := _in_vain(outcome):
        raise CollectionError(in_vain)
    return 0 if outcome.status is RunStatus.COMPLETE else 1


def _generated(job: _Job, run_dir: Path) -> Outcome:
    return asyncio.run(generate(job.config, job.workflow, job.inputs, run_dir, _watch(job.plan)))


def _generated_on_ray(job: _Job, options: GenerateOptions) -> Outcome:
    from nat_dpo_pipeline.plugin.distributed import Source, generate_on_ray

    source = Source(options.config_file, options.override)
    return asyncio.run(
        generate_on_ray(
            source,
            job.config,
            job.workflow,
            job.inputs,
            options.run_dir,
            _watch(job.plan),
            options.workers,
            options.address,
        )
    )


def _watch(plan: Plan) -> Watch:
    return partial(watching, expected_calls=plan.calls())


def _told(outcome: Outcome, seconds: float) -> Iterator[str]:
    record, dataset = outcome.record, outcome.dataset
    is_over = outcome.status in (RunStatus.COMPLETE, RunStatus.EMPTY)
    ended = "Ended" if is_over and _in_vain(outcome) else outcome.status.capitalize()
    yield f"{ended} after {telling.duration(seconds)}."
    if not is_over:
        yield _AGAIN
    yield ""
    yield from telling.counts_of(record)
    yield from telling.stood_in_for(record)
    if dataset is not None:
        yield from telling.pairs_of(dataset.written, dataset.skipped)
    for lines in (telling.failures_of(record, outcome.folder), telling.spending_of(record)):
        yield from ("", *lines) if lines else ()
    yield from telling.replayed_of(record)
    yield ""
    yield from telling.files_of(outcome.folder, dataset.written if dataset else None, record.counts)
    yield written_after(outcome.folder)


def _in_vain(outcome: Outcome) -> str | None:
    """Why there is nothing to train on, if there is nothing."""
    if not outcome.record.counts["candidates"]:
        return _nothing(outcome.first_failure)
    if outcome.dataset is not None and not any(file.rows for file in outcome.dataset.written.files):
        why = "why, it says above at `pairs left out`" if outcome.dataset.skipped else "no question has two of them"
        return f"no pair was made of the candidates; {why}"
    return None


def _nothing(first: Failure | None) -> str:
    return "not one candidate was made" + ("" if first is None else f": {first.detail}")


def _preview(job: _Job) -> int:
    small = preview_workflow(job.workflow)
    plan = plan_of(job.config, small, previewed(job.inputs, small))
    turns, record = asyncio.run(preview(job.config, job.workflow, job.inputs, _watch(plan)))
    builder = builder_of(job.config)
    say_all(telling.preview_lines(turns, PairingRules() if builder is None else builder.pairing_rules()))
    say_all(_previewed(record, job.plan.calibrated(plan, record.usage)))
    if record.stopped is not None:
        raise ModelError(record.stopped)
    if not record.counts["candidates"]:
        first = next((failure for failure in record.failures if failure.step != StepName.INPUT), None)
        raise CollectionError(_nothing(first))
    return 0


def _previewed(record: GenerationRecord, plan: Plan) -> Iterator[str]:
    yield "The preview took"
    yield from telling.spending_of(record)
    if failures := telling.failures_of(record):
        yield from ("", *failures)
    yield from ("", "The whole run would take", *telling.plan_lines(plan, measured=True))
