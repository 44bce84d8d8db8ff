"""Recorded candidates in the place of an evaluation: for the trajectory builder, and straight to a dataset."""

from asyncio import to_thread
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from nat_dpo_pipeline.core.candidates import Turn
from nat_dpo_pipeline.core.split import is_held_out
from nat_dpo_pipeline.dataset.recorded.reading import OnRefusal, ReadFiles, RefusedRecord, files_of, read_files
from nat_dpo_pipeline.dataset.recorded.spool import CandidateSpool
from nat_dpo_pipeline.dataset.run_folder import check_candidates, write_candidates
from nat_dpo_pipeline.dataset.writer import check_target
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.plugin.builder_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.plugin.collecting import Collected, pair_examples
from nat_dpo_pipeline.plugin.pairing import PairedDataset, selection_rules_of, target_of, write_pairs
from nat_dpo_pipeline.plugin.provenance import redacted
from nat_dpo_pipeline.plugin.trainer_config import DatasetTrainerAdapterConfig, DPOTrainerConfig
from nat_dpo_pipeline.report.summary import FileCounts


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


def pair_files(
    paths: Sequence[Path],
    folder: Path,
    builder: DPOTrajectoryBuilderConfig,
    trainer: DPOTrainerConfig,
    adapter: DatasetTrainerAdapterConfig,
    on_refusal: OnRefusal,
) -> tuple[ReadFiles, PairedDataset]:
    """Pair the candidates in the files into a dataset in `folder`, with the turns beside it for reports.

    Which prompts are held out depends on their text and the seed alone (`core.split.is_held_out`). Raises InputError,
    ConfigurationError and OutputError, for what can be known before anything is read.
    """
    selection_rules_of(builder)
    check_target(folder, target_of(adapter))
    check_candidates(folder)
    held_out = partial(is_held_out, fraction=trainer.validation_fraction, seed=trainer.seed)
    with TemporaryDirectory(prefix=".candidates-", dir=folder) as place, CandidateSpool(Path(place) / "spool") as spool:
        read = read_files(paths, builder.ttc_step_name, spool, on_refusal)
        configuration = {
            "trajectory_builder": redacted(builder),
            "trainer": redacted(trainer),
            "recorded": [file.to_json() for file in file_counts(read)],
        }
        paired = write_pairs(folder, spool.turns, builder, trainer, configuration, adapter, held_out)
        write_candidates(folder, spool.turns())
    return read, paired


def file_counts(read: ReadFiles) -> tuple[FileCounts, ...]:
    """What was read of each file, for a report."""
    return tuple(
        FileCounts(
            path=str(file.path),
            format="nothing in it" if file.format is None else file.format.name,
            records=file.records,
            candidates=file.candidates,
            refused=file.refused,
        )
        for file in read.files
    )


def _examples(spool: CandidateSpool, stopping: Event) -> Iterator[list[Turn]]:
    for _, turns in groupby(spool.turns(), key=lambda turn: turn.example_id):
        if stopping.is_set():
            raise InputError("reading was stopped")
        yield list(turns)
