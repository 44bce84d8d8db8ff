"""What `nat dpo pairs` does with its options."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nat_dpo_pipeline.cli.saying import say
from nat_dpo_pipeline.cli.sharding import ShardOptions, is_for_shards, run_shards
from nat_dpo_pipeline.cli.telling import columns, dataset_files, number, pairs_of, training_of
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import CollectionError, InputError
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.datasets import PairedDataset
from nat_dpo_pipeline.pairing.recorded import file_counts, pair_files
from nat_dpo_pipeline.pairing.rules_file import Rules, read_rules
from nat_dpo_pipeline.records.files import ReadFiles, RefusedRecord, files_of
from nat_dpo_pipeline.report.summary import listed

_REFUSALS_TOLD = 5


@dataclass(frozen=True, slots=True)
class PairsOptions:
    """The options of the command, by their names there."""

    files: tuple[str, ...]
    output_dir: Path
    rules: Path | None = None
    strategy: str | None = None
    min_score_diff: float | None = None
    step_name: str | None = None
    formats: tuple[str, ...] = ()
    validation_fraction: float | None = None
    seed: int | None = None
    engine: str = "auto"
    workers: int | None = None
    address: str | None = None
    memory: str = "4G"
    max_bad_share: float | None = None
    overwrite: bool = False

    def chosen(self) -> Rules:
        """The rules, as the command line changes them. Raises ConfigurationError."""
        return (Rules() if self.rules is None else _rules(self.rules)).changed(
            builder={
                "strategy": self.strategy,
                "min_score_diff": self.min_score_diff,
                "ttc_step_name": self.step_name,
                "seed": self.seed,
            },
            trainer={"validation_fraction": self.validation_fraction, "seed": self.seed},
            adapter={"formats": list(self.formats) or None},
        )

    def for_shards_alone(self) -> list[str]:
        """The options that were given and say something to shards alone."""
        given = {
            "--workers": self.workers is not None,
            "--address": self.address is not None,
            "--max-bad-share": self.max_bad_share is not None,
            "--overwrite": self.overwrite,
        }
        return [name for name, is_given in given.items() if is_given]

    def shards(self) -> ShardOptions:
        return ShardOptions(
            self.engine, self.workers, self.address, self.memory, self.max_bad_share, overwrite=self.overwrite
        )


def run_pairs(options: PairsOptions) -> int:
    """The exit code: 1 when there is no pair. Raises DPOPipelineError for what a user can mend."""
    builder, split, dataset = options.chosen().settings()
    files = options.files or tuple(builder.source or ())
    if not all(files) or not files:
        raise InputError("there is nothing to read: name files of recorded candidates")
    if is_for_shards(files, options.engine):
        return run_shards(files, options.output_dir, builder, split, dataset, options.shards())
    if unheard := options.for_shards_alone():
        say(f"{', '.join(unheard)}: not heard, as these files are paired in memory (--engine)", err=True)
    return _run_in_memory(files_of(files), options.output_dir, builder, split, dataset)


def _run_in_memory(
    paths: Sequence[Path], output_dir: Path, builder: BuilderSettings, split: SplitSettings, dataset: DatasetSettings
) -> int:
    refusals: list[RefusedRecord] = []
    read, paired = pair_files(paths, output_dir, builder, split, dataset, partial(_keep_first, refusals))
    _tell(read, refusals, paired)
    if not any(paired.written.pairs.values()):
        raise CollectionError(_no_pair(read, paired))
    _tell_of_the_split(paired, split.validation_fraction)
    return 0


def _rules(path: Path) -> Rules:
    rules = read_rules(path)
    if rules is None:
        from nat_dpo_pipeline.plugin.rules_file import rules_in_configuration

        return rules_in_configuration(path)
    return rules


def _keep_first(refusals: list[RefusedRecord], refusal: RefusedRecord) -> None:
    if len(refusals) < _REFUSALS_TOLD:
        refusals.append(refusal)


def _tell(read: ReadFiles, refusals: list[RefusedRecord], paired: PairedDataset) -> None:
    for file in file_counts(read):
        say(f"  {file}")
    for refusal in refusals:
        say(f"    {refusal}")
    if (more := read.refused.total() - len(refusals)) > 0:
        say(f"    and {number(more)} more")
    for problem in read.problems:
        say(f"  {problem}")
    split = f" ({number(read.turns_split)} split, as their prompts differ)" if read.turns_split else ""
    say(f"  {'candidates':<12}{number(read.candidates):>9}")
    say(f"  {'turns':<12}{number(read.turns):>9}{split}")
    for line in pairs_of(paired.written, paired.skipped):
        say(line)
    for line in (*columns(dataset_files(paired.written), left=2), *training_of(paired.written)):
        say(line)


def _no_pair(read: ReadFiles, paired: PairedDataset) -> str:
    if not read.candidates:
        why = read.problems[0] if read.problems else listed(read.refused) or "the files hold no candidates"
    else:
        left_out = (paired.skipped, *paired.written.refused.values())
        why = ", ".join(filter(None, map(listed, left_out))) or "every candidate is alone in its turn"
    return f"no pair was made of {number(read.candidates)} candidates: {why}"


def _tell_of_the_split(paired: PairedDataset, fraction: float) -> None:
    pairs = paired.written.pairs
    empty = [side for side in SplitName if not pairs[side]]
    if empty and fraction:
        say(
            f"  no pair is in {empty[0]}: each prompt's side follows from its text, so with few prompts one side may "
            "be empty; another --seed or --validation-fraction draws anew"
        )
