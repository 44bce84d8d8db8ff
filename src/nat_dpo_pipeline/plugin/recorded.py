"""Recorded candidates in the place of an evaluation."""

from asyncio import to_thread
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from nat_dpo_pipeline.core.candidates import Turn
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.pairing.recorded import file_counts
from nat_dpo_pipeline.plugin.finetuning.collecting import Collected, pair_examples
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.records.files import RefusedRecord, files_of, read_files
from nat_dpo_pipeline.records.spool import CandidateSpool


def recorded_files(config: DPOTrajectoryBuilderConfig) -> list[Path]:
    """The files that `source` names. Raises InputError when one is not there."""
    return files_of(config.source or ())


async def collect_in_a_thread(paths: Sequence[Path], config: DPOTrajectoryBuilderConfig) -> Collected:
    """`collect_recorded` beside the event loop; when this is cancelled it ends at the next record."""
    stopping = Event()
    try:
        return await to_thread(collect_recorded, paths, config, stopping)
    finally:
        stopping.set()


def collect_recorded(paths: Sequence[Path], config: DPOTrajectoryBuilderConfig, stopping: Event) -> Collected:
    """Read the files and pair their turns. Raises InputError, also when it is stopped."""
    collected = Collected()
    refusals: list[RefusedRecord] = []
    with TemporaryDirectory(prefix="nat-dpo-") as folder, CandidateSpool(Path(folder) / "candidates") as spool:
        read = read_files(paths, config.ttc_step_name, spool, refusals.append, stopping.is_set)
        pair_examples(_examples(spool, stopping), config, collected)
    collected.candidates = read.candidates
    collected.turns_split = read.turns_split
    collected.refused = read.refused
    collected.files = file_counts(read)
    collected.problems.extend(read.problems)
    collected.failures.extend({"file": str(one.path), "line": one.line, "reason": one.reason} for one in refusals)
    return collected


def _examples(spool: CandidateSpool, stopping: Event) -> Iterator[list[Turn]]:
    for _, turns in groupby(spool.turns(), key=lambda turn: turn.example_id):
        if stopping.is_set():
            raise InputError("reading was stopped")
        yield list(turns)
