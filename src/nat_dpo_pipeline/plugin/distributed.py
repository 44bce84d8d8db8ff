"""A generation run whose inputs are shared by several processes on a Ray cluster, each with a journal of its own.

A worker is an ordinary run over its share, in `workers/<number>` of the run folder, so that one that dies is started
again and replays what it had finished. What they leave is merged to what one process would have left.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.dataset.files import write_json
from nat_dpo_pipeline.dataset.run_files import CANDIDATES, FAILURES, SET_ASIDE
from nat_dpo_pipeline.dataset.run_folder import RunFolder
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError, DPOPipelineError
from nat_dpo_pipeline.generation.chat import Waiting
from nat_dpo_pipeline.generation.record import GenerationRecord, ModelUsage, StepProgress
from nat_dpo_pipeline.pairing.cluster import connected
from nat_dpo_pipeline.plugin.commands.generation import (
    Inputs,
    Outcome,
    RunStatus,
    Watch,
    generate,
    load,
    tell_interrupted,
    without_training,
    write_run,
)
from nat_dpo_pipeline.plugin.interrupts import cancelled_by_signals
from nat_dpo_pipeline.plugin.nat_api import Config
from nat_dpo_pipeline.plugin.workflow_config import ModelLimitsConfig, PreferenceDataConfig, llms_in

WORKERS = "workers"
_SHARES = "shares.json"
_SECONDS_BETWEEN_LOOKS = 0.5
_STARTS_OF_A_WORKER = 5
# The worst that any worker came to is what the run came to; it is empty when the shares of all are.
_BY_BADNESS = (
    RunStatus.EMPTY,
    RunStatus.COMPLETE,
    RunStatus.INCOMPLETE,
    RunStatus.INTERRUPTED,
    RunStatus.STOPPED,
    RunStatus.FAILED,
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a worker finds the configuration: a path that every node sees, and what is replaced in it."""

    config_file: Path
    overrides: tuple[tuple[str, str], ...] = ()


def shares_of(inputs: Inputs, workers: int) -> list[list[tuple[str, str]]]:
    """Each worker's inputs. Equal texts stay together, as the second of them is another run over the same."""
    shares: list[list[tuple[str, str]]] = [[] for _ in range(workers)]
    owner: dict[bytes, int] = {}
    for name, text in inputs:
        key = blake2b(text.encode(errors="surrogatepass"), digest_size=12).digest()
        shares[owner.setdefault(key, len(owner) % workers)].append((name, text))
    return [share for share in shares if share]


def sharing_limits(workflow: PreferenceDataConfig, workers: int) -> PreferenceDataConfig:
    """The workflow as each of so many processes runs it: together they ask for no more than one may.

    Raises ConfigurationError where a limit cannot be shared by so many.
    """
    names = sorted(set(llms_in(workflow)))
    limits = {name: workflow.limits.get(name, ModelLimitsConfig()) for name in names}
    for name, limit in limits.items():
        for what, most in (
            ("max_concurrency", limit.max_concurrency or workflow.max_concurrency),
            ("tokens_per_minute", limit.tokens_per_minute),
        ):
            if most is not None and most < workers:
                raise ConfigurationError(
                    f"{workers} workers cannot share the {what} of {name!r}, which is {most}: give --workers {most} "
                    "or fewer"
                )
    return workflow.model_copy(
        update={"limits": {name: _shared(limit, workflow, workers) for name, limit in limits.items()}, "journal": None}
    )


def _shared(limit: ModelLimitsConfig, workflow: PreferenceDataConfig, workers: int) -> ModelLimitsConfig:
    requests, tokens = limit.requests_per_minute, limit.tokens_per_minute
    return limit.model_copy(
        update={
            "max_concurrency": (limit.max_concurrency or workflow.max_concurrency) // workers,
            "requests_per_minute": None if requests is None else requests / workers,
            "tokens_per_minute": None if tokens is None else tokens // workers,
        }
    )


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What a worker says of itself while it runs."""

    progress: Mapping[str, StepProgress]
    usage: Mapping[tuple[str, str], ModelUsage]
    waiting: tuple[Waiting, ...] = ()


class GenerationWorker:
    """One process of the run; Ray makes an actor of it."""

    def __init__(self, source: Source, inputs: Sequence[tuple[str, str]], workers: int, folder: Path) -> None:
        self._source = source
        self._workers = workers
        self._inputs = inputs
        self._folder = folder
        self._record = GenerationRecord()
        self._collecting: asyncio.Task[Any] | None = None

    async def run(self) -> Outcome:
        """Raises whatever `generate` raises; an error that ended the run is in the outcome, as its message."""
        # Not before: Ray tells of what an actor's constructor raises as of a worker that died.
        config, workflow = load(self._source.config_file, self._source.overrides)
        outcome = await generate(
            without_training(config),
            sharing_limits(workflow, self._workers),
            self._inputs,
            self._folder,
            self._watch,
            self._stoppable,
        )
        error = outcome.error
        # Neither callbacks nor any exception can travel to another process.
        told = None if error is None else DPOPipelineError(f"{type(error).__name__}: {error}")
        return replace(outcome, record=replace(outcome.record, on_failure=None, waiting=tuple), error=told)

    async def stop(self) -> None:
        """Send nothing more, and let `run` end with what is there."""
        if self._collecting is not None:
            self._collecting.cancel()

    async def state(self) -> WorkerState:
        return WorkerState(dict(self._record.progress), dict(self._record.usage), tuple(self._record.waiting()))

    @contextmanager
    def _watch(self, record: GenerationRecord) -> Iterator[None]:
        self._record = record
        yield

    @contextmanager
    def _stoppable(self, task: "asyncio.Task[Any]", _on_cancel: object) -> Iterator[None]:
        self._collecting = task
        yield


async def generate_on_ray(
    source: Source,
    config: Config,
    workflow: PreferenceDataConfig,
    inputs: Inputs,
    run_dir: Path,
    watch: Watch,
    workers: int,
    address: str | None = None,
) -> Outcome:
    """`generate` by several processes of the Ray cluster at `address`; without one, of this machine.

    Raises ConfigurationError, also when the folder was begun with another number of workers, CollectionError when a
    worker is lost for good, and OutputError.
    """
    shares = shares_of(inputs, workers)
    sharing_limits(workflow, len(shares))
    with RunFolder(run_dir) as folder:
        _claim_shares(run_dir, workers)
        record = GenerationRecord(prices=workflow.prices)
        folders = _folders(run_dir, len(shares))
        with connected(address, workers), watch(record):
            actors = [_started(source, share, len(shares), path) for share, path in zip(shares, folders, strict=True)]
            outcomes = await _finished(actors, record)
        merged = merge(outcomes, folders, [name for name, _ in inputs], folder, record)
        dataset = write_run(config, folder, record, merged.status)
        return replace(merged, dataset=dataset)


def _folders(run_dir: Path, workers: int) -> list[Path]:
    return [run_dir.absolute() / WORKERS / str(number) for number in range(workers)]


def _started(source: Source, share: list[tuple[str, str]], workers: int, folder: Path) -> Any:
    import ray

    actor = ray.remote(GenerationWorker)
    options = {"num_cpus": 1, "max_restarts": _STARTS_OF_A_WORKER, "max_task_retries": _STARTS_OF_A_WORKER}
    return actor.options(**options).remote(
        replace(source, config_file=source.config_file.absolute()), share, workers, folder
    )


async def _finished(actors: Sequence[Any], record: GenerationRecord) -> list[Outcome]:
    """What the workers came to; an interruption lets each end in order."""

    def stop() -> None:
        tell_interrupted()
        for actor in actors:
            actor.stop.remote()

    looking = asyncio.create_task(_look(actors, record))
    with cancelled_by_signals(looking, stop):
        try:
            return await _all_of([actor.run.remote() for actor in actors])
        finally:
            looking.cancel()


async def _all_of(references: Sequence[Any]) -> list[Any]:
    """What the calls of actors come to; raises what they raised, CollectionError when a process cannot be had."""
    from ray.exceptions import RayError, RayTaskError

    async def one(reference: Any) -> Any:
        try:
            return await reference
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise CollectionError(f"a worker was lost for good; the same command goes on: {_said(error)}") from error

    return list(await asyncio.gather(*map(one, references)))


def _said(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


async def _look(actors: Sequence[Any], record: GenerationRecord) -> None:
    while True:
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        try:
            states: list[WorkerState] = await _all_of([actor.state.remote() for actor in actors])
        except CollectionError:
            # Whether it is lost for good `run` tells; meanwhile this is what an interruption cancels.
            continue
        record.progress = _progress(state.progress for state in states)
        record.usage = _usage(state.usage for state in states)
        record.waiting = [one for state in states for one in state.waiting].copy


def merge(
    outcomes: Sequence[Outcome],
    folders: Sequence[Path],
    names: Sequence[str],
    folder: RunFolder,
    record: GenerationRecord,
) -> Outcome:
    """What one process would have left of the same inputs, in their order."""
    position = {name: number for number, name in enumerate(names)}
    for path in folders:
        for file, to_pair in ((CANDIDATES, True), (SET_ASIDE, False)):
            for number, row in enumerate(_lines(path / file)):
                example_id = json.loads(row)["example_id"]
                folder.add_row((position[example_id], number), row, to_pair=to_pair)
        folder.add_failures(_lines(path / FAILURES))
    for outcome in outcomes:
        _add(outcome.record, record)
    record.progress = _progress(outcome.record.progress for outcome in outcomes)
    record.usage = _usage(outcome.record.usage for outcome in outcomes)
    return Outcome(
        max((outcome.status for outcome in outcomes), key=_BY_BADNESS.index),
        record,
        folder.path,
        first_failure=next((outcome.first_failure for outcome in outcomes if outcome.first_failure), None),
        error=next((outcome.error for outcome in outcomes if outcome.error), None),
    )


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file


def _add(part: GenerationRecord, record: GenerationRecord) -> None:
    record.counts.update(part.counts)
    for step, reasons in part.failed_by.items():
        record.failed_by.setdefault(step, Counter()).update(reasons)
    record.stopped = record.stopped or part.stopped
    record.lost += part.lost
    record.stood_in_for.update(part.stood_in_for)


def _progress(parts: Iterable[Mapping[str, StepProgress]]) -> dict[str, StepProgress]:
    total: dict[str, StepProgress] = {}
    for part in parts:
        for step, one in part.items():
            known = total.setdefault(step, StepProgress())
            known.running += one.running
            known.done += one.done
            known.failed += one.failed
    return total


def _usage(parts: Iterable[Mapping[tuple[str, str], ModelUsage]]) -> dict[tuple[str, str], ModelUsage]:
    total: dict[tuple[str, str], ModelUsage] = {}
    for part in parts:
        for key, one in part.items():
            total.setdefault(key, ModelUsage()).include(one)
    return total


def _claim_shares(run_dir: Path, workers: int) -> None:
    """Which worker has an input, and so which journal has its calls, follows from their number."""
    path = run_dir / WORKERS / _SHARES
    if path.exists():
        begun = json.loads(path.read_bytes())["workers"]
        if begun != workers:
            raise ConfigurationError(
                f"the run in {str(run_dir)!r} was begun with {begun} workers, and each has a journal: give --workers "
                f"{begun}, or another folder"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"workers": workers})
