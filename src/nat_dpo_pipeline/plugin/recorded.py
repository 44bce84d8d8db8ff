"""Recorded candidates in the place of an evaluation."""

from asyncio import to_thread
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from threading import Event

from nat_dpo_pipeline.core.candidates import Turn
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.plugin.finetuning.collecting import Collected, pair_examples
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.records.inputs import files_found
from nat_dpo_pipeline.records.turns import ReadTurns, read_turns


def recorded_files(config: DPOTrajectoryBuilderConfig) -> list[str]:
    """Return the files that `source` names. Raises InputError when one is not there."""
    return [file.uri for file in files_found(config.source or ())]


async def collect_in_a_thread(files: Sequence[str], config: DPOTrajectoryBuilderConfig) -> Collected:
    """`collect_recorded` beside the event loop; when this is cancelled it ends soon."""
    stopping = Event()
    try:
        return await to_thread(collect_recorded, files, config, stopping)
    finally:
        stopping.set()


def collect_recorded(files: Sequence[str], config: DPOTrajectoryBuilderConfig, stopping: Event) -> Collected:
    """Read the files and pair their turns. Raises InputError, also when it is stopped."""
    read = read_turns(files, config.ttc_step_name, stopping.is_set, columns=config.columns())
    collected = Collected()
    pair_examples(_examples(read, stopping), config, collected)
    collected.candidates = read.candidates
    collected.turns_split = read.turns_split
    collected.refused = sum((file.refused for file in read.files), Counter())
    collected.files = tuple(read.files)
    collected.problems.extend(read.problems)
    collected.failures.extend({"file": one.path, "line": one.line, "reason": one.reason} for one in read.bad)
    return collected


def _examples(read: ReadTurns, stopping: Event) -> Iterator[list[Turn]]:
    for _, turns in groupby(read, key=lambda turn: turn.example_id):
        if stopping.is_set():
            raise InputError("reading was stopped")
        yield list(turns)
