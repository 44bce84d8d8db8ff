"""`nat dpo generate`: from topics or questions to scored candidates and pairs, without an evaluation.

The imports of a run stand in its functions, so that `--help` needs no NAT.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nat_dpo_pipeline.cli.terminal import say, say_all
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError, ModelError

if TYPE_CHECKING:
    from nat_dpo_pipeline.generation.plan import Plan
    from nat_dpo_pipeline.plugin.commands.generation import Inputs, Outcome, Watch
    from nat_dpo_pipeline.plugin.nat_api import Config
    from nat_dpo_pipeline.plugin.workflow_config import PreferenceDataConfig

_INTERRUPTED = 130


class _OldSpellings(click.Command):
    """The command, which accepts `--run-dir DIR` for `--output` and `-o KEY VALUE` for `--override`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_respelled(args)))


def _respelled(args: Sequence[str]) -> Iterator[str]:
    for place, word in enumerate(args):
        if word == "--run-dir" or word.startswith("--run-dir="):
            yield word.replace("--run-dir", "--output", 1)
        elif word == "-o" and _is_an_override(args[place + 1 : place + 3]):
            yield "--override"
        else:
            yield word


def _is_an_override(words: Sequence[str]) -> bool:
    """Return True for a key and a value: one folder would be followed by an option, as the command has no arguments."""
    return len(words) == 2 and not any(word.startswith(("--", "-o")) for word in words)


@click.command(name="generate", cls=_OldSpellings)
@click.option(
    "--config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="A configuration whose workflow is `preference_data`.",
)
@click.option("--topic", "topics", multiple=True, help="A topic, question, or messages as JSON; can be repeated.")
@click.option(
    "--dataset",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of inputs: JSON, JSONL or plain lines. Without it and --topic: the dataset under `eval`.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/generate"),
    show_default=True,
    help="Folder of the results. The same command with the same folder goes on where it stopped.",
)
@click.option(
    "--override", type=(str, str), multiple=True, help="Replace a value: `--override workflow.n_subtopics 3`."
)
@click.option("--preview", is_flag=True, help="Two questions through all steps, shown here; nothing is written.")
@click.option("--dry-run", is_flag=True, help="How many calls, and about how many tokens; nothing is sent.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="`ray` shares the inputs among workers of a Ray cluster; the limits are shared too.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Of the engine ray.")
@click.option("--address", help="Of a Ray cluster that runs already; without it one is started on this machine.")
def generate_command(**options: object) -> None:
    """Generate and score responses, and leave candidates, failures, a manifest and the pairs in a folder.

    With a trajectory builder in the configuration the candidates are paired as it says. Ctrl-C stops in order.
    """
    raise SystemExit(run_generate(GenerateOptions(**options)))  # type: ignore[arg-type]  # click fills them by name


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """The options of the command, by their names on the command line."""

    config_file: Path
    topics: tuple[str, ...] = ()
    dataset: Path | None = None
    output: Path = Path("runs/generate")
    override: tuple[tuple[str, str], ...] = ()
    preview: bool = False
    dry_run: bool = False
    engine: str = "local"
    workers: int = 2
    address: str | None = None


@dataclass(frozen=True, slots=True)
class _GenerationJob:
    """A loaded configuration with its inputs and its plan."""

    config: "Config"
    workflow: "PreferenceDataConfig"
    inputs: "Inputs"
    plan: "Plan"

    def watch(self, plan: "Plan | None" = None) -> "Watch":
        from nat_dpo_pipeline.cli.display import watching

        return partial(watching, expected_calls=(plan or self.plan).calls())


def run_generate(options: GenerateOptions) -> int:
    """Return the exit code: 0 complete, 130 interrupted, else 1."""
    try:
        return _run(options)
    except KeyboardInterrupt:  # NAT would exit with 1
        # A task that was interrupted while it ran logs its traceback when it is collected.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        say("Interrupted at once: what was asked for last may be asked for again.", err=True)
        return _INTERRUPTED


def _run(options: GenerateOptions) -> int:
    from nat_dpo_pipeline.cli.generation_summary import plan_lines

    job = _job(options)
    if options.dry_run:
        say_all(plan_lines(job.plan))
        return 0
    return _preview(job) if options.preview else _generate(job, options)


def _job(options: GenerateOptions) -> _GenerationJob:
    from nat_dpo_pipeline.plugin.commands.generation import inputs_of, load
    from nat_dpo_pipeline.plugin.planning import plan_of

    config, workflow = load(options.config_file, options.override)
    inputs = inputs_of(config, options.topics, options.dataset)
    plan = plan_of(config, workflow, inputs)
    if not (plan.inputs.topics or plan.inputs.questions):
        malformed = f": all {plan.inputs.malformed} inputs are malformed" if plan.inputs.malformed else ""
        raise ConfigurationError(f"there is nothing to generate from{malformed}")
    return _GenerationJob(config, workflow, inputs, plan)


def _generate(job: _GenerationJob, options: GenerateOptions) -> int:
    from nat_dpo_pipeline.cli.generation_summary import no_result, run_lines
    from nat_dpo_pipeline.plugin.commands.generation import RunStatus

    started = time.monotonic()
    outcome = _on_ray(job, options) if options.engine == "ray" else _here(job, options.output)
    say_all(run_lines(outcome, time.monotonic() - started))
    if outcome.error is not None:
        raise outcome.error
    if outcome.status is RunStatus.INTERRUPTED:
        return _INTERRUPTED
    if outcome.record.stopped is not None:
        raise ModelError(outcome.record.stopped)
    if reason := no_result(outcome):
        raise CollectionError(reason)
    return 0 if outcome.status is RunStatus.COMPLETE else 1


def _here(job: _GenerationJob, folder: Path) -> "Outcome":
    from nat_dpo_pipeline.plugin.commands.generation import generate

    return asyncio.run(generate(job.config, job.workflow, job.inputs, folder, job.watch()))


def _on_ray(job: _GenerationJob, options: GenerateOptions) -> "Outcome":
    from nat_dpo_pipeline.plugin.distributed import Source, generate_on_ray

    source = Source(options.config_file, options.override)
    return asyncio.run(
        generate_on_ray(
            source,
            job.config,
            job.workflow,
            job.inputs,
            options.output,
            job.watch(),
            options.workers,
            options.address,
        )
    )


def _preview(job: _GenerationJob) -> int:
    from nat_dpo_pipeline.cli.generation_summary import no_candidate, preview_lines, preview_summary
    from nat_dpo_pipeline.core.pairs import PairingRules
    from nat_dpo_pipeline.generation.settings import StepName
    from nat_dpo_pipeline.plugin.commands.components import builder_of
    from nat_dpo_pipeline.plugin.commands.generation import preview, preview_workflow, previewed
    from nat_dpo_pipeline.plugin.planning import plan_of

    small = preview_workflow(job.workflow)
    plan = plan_of(job.config, small, previewed(job.inputs, small))
    turns, record = asyncio.run(preview(job.config, job.workflow, job.inputs, job.watch(plan)))
    builder = builder_of(job.config)
    say_all(preview_lines(turns, PairingRules() if builder is None else builder.pairing_rules()))
    say_all(preview_summary(record, job.plan.calibrated(plan, record.usage)))
    if record.stopped is not None:
        raise ModelError(record.stopped)
    if not record.counts["candidates"]:
        first = next((failure for failure in record.failures if failure.step != StepName.INPUT), None)
        raise CollectionError(no_candidate(first))
    return 0
