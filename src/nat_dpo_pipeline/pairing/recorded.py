"""Files of recorded candidates to a dataset of pairs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

from nat_dpo_pipeline.core.split import is_held_out
from nat_dpo_pipeline.dataset.run_folder import check_candidates, write_candidates
from nat_dpo_pipeline.dataset.writer import check_target
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.datasets import PairedDataset, write_pairs
from nat_dpo_pipeline.records.files import OnRefusal, ReadFiles, read_files
from nat_dpo_pipeline.records.spool import CandidateSpool
from nat_dpo_pipeline.redacted import redacted
from nat_dpo_pipeline.report.summary import FileCounts


def pair_files(
    paths: Sequence[Path],
    folder: Path,
    builder: BuilderSettings,
    trainer: SplitSettings,
    adapter: DatasetSettings,
    on_refusal: OnRefusal,
) -> tuple[ReadFiles, PairedDataset]:
    """Pair the candidates in the files into a dataset in `folder`, with the turns beside it for reports.

    Which prompts are held out depends on their text and the seed alone (`core.split.is_held_out`). Raises InputError,
    ConfigurationError and OutputError, for what can be known before anything is read.
    """
    builder.selection_rules()
    check_target(folder, adapter.target())
    check_candidates(folder)
    held_out = partial(is_held_out, fraction=trainer.validation_fraction, seed=trainer.seed)
    with CandidateSpool(folder / f".candidates-{uuid4().hex}") as spool:
        read = read_files(paths, builder.ttc_step_name, spool, on_refusal)
        configuration = {
            "trajectory_builder": redacted(builder),
            "trainer": redacted(trainer),
            "trainer_adapter": redacted(adapter),
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
