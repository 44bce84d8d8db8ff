"""A generation run without an evaluation: inputs → turns → files in a run folder."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from nat.builder.workflow_builder import WorkflowBuilder

from nat_dpo_pipeline.dataset.input_rows import read_inputs
from nat_dpo_pipeline.dataset.run_files import CANDIDATES, DATASET, JOURNAL
from nat_dpo_pipeline.dataset.run_folder import RunFolder
from nat_dpo_pipeline.errors import ConfigurationError, DPOPipelineError, InputError
from nat_dpo_pipeline.generation.inputs import Request, read_request
from nat_dpo_pipeline.generation.journal import Journal
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.settings import StepName
from nat_dpo_pipeline.generation.turns import Turn
from nat_dpo_pipeline.pairing.api import pair_as_set
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings
from nat_dpo_pipeline.pairing.options import EngineName, PairedFiles, PairingOptions
from nat_dpo_pipeline.plugin.commands.components import adapter_of, builder_of, trainer_of
from nat_dpo_pipeline.plugin.interrupts import cancelled_by_signals
from nat_dpo_pipeline.plugin.nat_api import Config, FinetuneConfig, load_config
from nat_dpo_pipeline.plugin.provenance import workflow_configuration
from nat_dpo_pipeline.plugin.workflow_config import PreferenceDataConfig, functions_in
from nat_dpo_pipeline.plugin.workflows.recipe import OpenModels, open_recipe
from nat_dpo_pipeline.redacted import redacted

logger = logging.getLogger(__name__)

Inputs = Iterable[tuple[str, str]]
Watch = Callable[[GenerationRecord], AbstractContextManager[object]]
#: Cancels the task when something outside wants an end, and then calls what tells so.
Interrupts = Callable[["asyncio.Task[Any]", Callable[[], None]], AbstractContextManager[object]]

_SECONDS_FOR_CALLS_UNDER_WAY = 60.0
_PREVIEWED_QUESTIONS = 2
_OWN_ROWS = "nat_dpo_pipeline.plugin.datasets.load_rows"


class RunStatus(StrEnum):
    """End of a run. The same command makes the rest of a run that is neither complete nor empty."""

    EMPTY = "empty"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in its folder. `dataset` is None when no trajectory builder of ours is configured.

    `first_failure` is the first that was not about an input, `error` what ended the run if it was no interruption.
    """

    status: RunStatus
    record: GenerationRecord
    folder: Path
    dataset: PairedFiles | None = None
    first_failure: Failure | None = None
    error: BaseException | None = None


def load(config_file: Path, overrides: tuple[tuple[str, str], ...] = ()) -> tuple[Config, PreferenceDataConfig]:
    """The configuration, and the workflow in it. Raises ConfigurationError."""
    config = load_any(config_file, overrides)
    if not isinstance(config.workflow, PreferenceDataConfig):
        raise ConfigurationError(
            f"the workflow in {str(config_file)!r} is of type {config.workflow.type!r}; generate runs preference_data"
        )
    return config, config.workflow


def load_any(config_file: Path, overrides: tuple[tuple[str, str], ...] = ()) -> Config:
    """The configuration, whatever it is of. Raises ConfigurationError."""
    try:
        # The second logs the whole text of a file that is no YAML, with the keys in it.
        with _quiet("nat.utils.exception_handlers.schemas"), _quiet("nat.utils.io.yaml_tools"):
            return load_config(config_file, overrides)
    except ConfigurationError:
        raise
    except Exception as error:  # NAT's loader, and the plugins it asks, raise many kinds
        raise ConfigurationError(f"{str(config_file)!r} cannot be used: {_said(error)}") from error


def inputs_of(config: Config, texts: Sequence[str], file: Path | None) -> Inputs:
    """What was given on the command line, or else the dataset under `eval`. Raises ConfigurationError without any."""
    given = [(f"input-{number}", text) for number, text in enumerate(texts, start=1)]
    if file is not None:
        return _FileInputs(given, file)
    return given or _dataset_of(config)


@dataclass(frozen=True, slots=True)
class _FileInputs:
    """The inputs in a file, read anew each time."""

    before: Sequence[tuple[str, str]]
    path: Path
    id_key: str = "id"
    text_key: str | None = None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        used = {name for name, _ in self.before}
        yield from self.before
        yield from read_inputs(self.path, id_key=self.id_key, text_key=self.text_key, used=used)


def _dataset_of(config: Config) -> Inputs:
    dataset = config.eval.general.dataset
    if dataset is None:
        raise ConfigurationError("there is nothing to generate from: give --topic or --dataset")
    is_read = dataset.type in ("json", "jsonl") or getattr(dataset, "function", None) == _OWN_ROWS
    is_filtered = dataset.filter is not None and bool(dataset.filter.model_dump(exclude_defaults=True))
    if not is_read or is_filtered:
        what = "has a filter" if is_filtered else f"is of type {dataset.type!r}"
        raise ConfigurationError(f"the dataset under eval {what}, which generate does not read: give --dataset FILE")
    return _FileInputs((), Path(str(dataset.file_path)), dataset.id_key, dataset.structure.question_key)


async def generate(
    config: Config,
    workflow: PreferenceDataConfig,
    inputs: Inputs,
    run_dir: Path,
    watch: Watch,
    interrupts: Interrupts = cancelled_by_signals,
) -> Outcome:
    """Run the recipe over the inputs and leave candidates, failures, manifest and, if configured, pairs in `run_dir`.

    The first interruption lets the calls under way end and writes what is there. Raises ConfigurationError before
    anything is touched, and OutputError; an error that ends the run is in the outcome, as is what was collected.
    """
    with closing(Journal(workflow.journal or run_dir / JOURNAL)) as journal:
        # The models outlive the calls under way, and the folder is not touched by a configuration that is none.
        async with _opened(config, workflow, journal) as recipe:
            recipe.pipeline(GenerationRecord())
            journal.check()
            with RunFolder(run_dir) as folder:
                return await _generate(config, workflow, inputs, recipe, folder, journal, watch, interrupts)


async def _generate(
    config: Config,
    workflow: PreferenceDataConfig,
    inputs: Inputs,
    recipe: PreferenceRecipe,
    folder: RunFolder,
    journal: Journal,
    watch: Watch,
    interrupts: Interrupts,
) -> Outcome:
    record = GenerationRecord(prices=workflow.prices, on_failure=folder.failed, waiting=recipe.waiting)
    collecting = asyncio.create_task(_collect(recipe, _requests(inputs, workflow, record), folder, record))
    with watch(record), interrupts(collecting, tell_interrupted):
        try:
            is_out_of_time = await _out_of_time(collecting, workflow.max_minutes)
            await journal.finish(_SECONDS_FOR_CALLS_UNDER_WAY)
        finally:
            # Only of use when this is cancelled itself, by a second interruption.
            collecting.cancel()
            await journal.finish(0.0)
    error = None if collecting.cancelled() else collecting.exception()
    status = RunStatus.INCOMPLETE if is_out_of_time else _status(collecting, record)
    dataset = write_run(config, folder, record, status)
    return Outcome(status, record, folder.path, dataset, folder.first_failure, error)


async def _out_of_time(collecting: "asyncio.Task[None]", minutes: float | None) -> bool:
    """Wait for the end of what collects; whether it was cancelled because so many minutes were over."""
    _, pending = await asyncio.wait([collecting], timeout=None if minutes is None else 60 * minutes)
    if pending:
        logger.warning("max_minutes: %g minutes are over; waiting for the calls under way, which are paid for", minutes)
        collecting.cancel()
        await asyncio.wait([collecting])
    return bool(pending) and collecting.cancelled()


async def preview(
    config: Config, workflow: PreferenceDataConfig, inputs: Inputs, watch: Watch
) -> tuple[list[Turn], GenerationRecord]:
    """Two questions through all steps: of the first input when it is a topic, else the first two inputs."""
    small = preview_workflow(workflow)
    async with _opened(config, small, None) as recipe:
        record = GenerationRecord(prices=workflow.prices, waiting=recipe.waiting)
        requests = _until_two_questions(_requests(inputs, small, record))
        with watch(record):
            async with aclosing(recipe.run(requests, record)) as items:
                found = [item async for item in items]
    return [item.value for item in sorted(found, key=lambda item: item.path)], record


def preview_workflow(workflow: PreferenceDataConfig) -> PreferenceDataConfig:
    """The workflow as a preview runs it."""
    return workflow.model_copy(update={"n_subtopics": 1, "n_questions": _PREVIEWED_QUESTIONS, "journal": None})


def previewed(inputs: Inputs, workflow: PreferenceDataConfig) -> list[tuple[str, str]]:
    """The inputs that a preview takes."""
    record = GenerationRecord()
    names = {request.example_id for request in _until_two_questions(_requests(inputs, workflow, record))}
    return [(name, text) for name, text in inputs if name in names]


async def _collect(
    recipe: PreferenceRecipe, requests: Iterable[Request], folder: RunFolder, record: GenerationRecord
) -> None:
    async with aclosing(recipe.run(requests, record)) as items:
        async for item in items:
            folder.add(item, getattr(item.root.value, "example_id", ""))


@asynccontextmanager
async def _opened(
    config: Config, workflow: PreferenceDataConfig, journal: Journal | None
) -> AsyncIterator[PreferenceRecipe]:
    """The recipe, over llms and functions that NAT builds; nothing else of the configuration is built.

    Raises ConfigurationError, also for a component that NAT cannot build.
    """
    async with AsyncExitStack() as stack:
        builder = await stack.enter_async_context(WorkflowBuilder(general_config=config.general))
        await _populate(builder, config)
        models = OpenModels(
            workflow, builder.get_llm_config, journal, stack, workflow.journal_by, workflow.ask_together
        )
        for name in functions_in(workflow):
            await _check_function(name, builder)
        yield open_recipe(workflow, models, builder.get_function)


def without_training(config: Config) -> Config:
    """The configuration without trajectory builder, trainer and adapter, which need not be built to generate."""
    nothing: dict[str, Any] = {"trainers": {}, "trainer_adapters": {}, "trajectory_builders": {}}
    return config.model_copy(update={"finetuning": FinetuneConfig(), **nothing})


async def _populate(builder: WorkflowBuilder, config: Config) -> None:
    try:
        with _quiet("nat.builder.workflow_builder"):
            await builder.populate_builder(without_training(config), skip_workflow=True)
    except DPOPipelineError:
        raise
    except Exception as error:  # whatever a component of somebody else raises
        left = [f"{group}.{name}" for name, group in builder.remaining_components if name != "<workflow>"][:1]
        what = left[0] if left else "the configuration"
        raise ConfigurationError(f"{what} cannot be built: {_said(error)}") from error


async def _check_function(name: str, builder: WorkflowBuilder) -> None:
    try:
        await builder.get_function(name)
    except ValueError as error:
        raise ConfigurationError(f"the workflow names the function {name!r}, which is not under functions:") from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """NAT logs what it raises, some of it with a traceback; here it is told once, in a line."""
    log = logging.getLogger(name)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _requests(inputs: Inputs, workflow: PreferenceDataConfig, record: GenerationRecord) -> Iterator[Request]:
    runs: Counter[bytes] = Counter()
    for name, text in inputs:
        key = blake2b(text.encode(errors="surrogatepass"), digest_size=12).digest()
        try:
            yield read_request(text, workflow.input_kind, example_id=name, run=runs[key])
        except InputError as error:
            record.add(Failure(StepName.INPUT, text[:200], FailureReason.MALFORMED_INPUT, f"{name}: {error}"))
        runs[key] += 1


def _until_two_questions(requests: Iterable[Request]) -> Iterator[Request]:
    for request in islice(requests, _PREVIEWED_QUESTIONS):
        yield request
        if request.topic is not None:
            return


def _status(collecting: "asyncio.Task[None]", record: GenerationRecord) -> RunStatus:
    if collecting.cancelled():
        return RunStatus.INTERRUPTED
    if collecting.exception() is not None:
        return RunStatus.FAILED
    if record.stopped is not None:
        return RunStatus.STOPPED
    if record.lost:
        return RunStatus.INCOMPLETE
    return RunStatus.COMPLETE if record.counts["candidates"] else RunStatus.EMPTY


def write_run(config: Config, folder: RunFolder, record: GenerationRecord, status: RunStatus) -> PairedFiles | None:
    """Write candidates, manifest and, if configured, the pairs. Raises OutputError."""
    configuration = workflow_configuration(config)
    folder.write_candidates()
    dataset = None
    if (builder := builder_of(config)) is not None:
        trainer, adapter = trainer_of(config), adapter_of(config)
        configuration |= {
            "trajectory_builder": redacted(builder),
            "trainer": redacted(trainer),
            "trainer_adapter": redacted(adapter),
        }
        dataset = pair_as_set(
            [str(folder.path / CANDIDATES)],
            str(folder.path / DATASET),
            (builder, trainer, adapter or DatasetSettings()),
            PairingOptions(engine=EngineName.MEMORY, exact_split=True, max_bad_share=0.0),
            configuration=configuration,
        )
    folder.write_manifest(record, status=status, configuration=configuration)
    return dataset


def tell_interrupted() -> None:
    """Say what the first interruption does."""
    logger.warning("interrupted: waiting for the calls under way, which are paid for; once more ends at once")
