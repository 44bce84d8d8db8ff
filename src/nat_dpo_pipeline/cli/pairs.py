"""`nat dpo pairs`: recorded candidates to a dataset of pairs."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from nat_dpo_pipeline.cli.options import card_options
from nat_dpo_pipeline.cli.output import nothing_left_on_error
from nat_dpo_pipeline.cli.summaries import columns, dataset_lines, number
from nat_dpo_pipeline.cli.terminal import say, say_all
from nat_dpo_pipeline.dataset.evaluation_rows import read_evaluation_texts
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError, InputError
from nat_dpo_pipeline.pairing import api as shards
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.datasets import PairedDataset
from nat_dpo_pipeline.pairing.options import Decontamination, EngineName, FileKind, ScaleOptions
from nat_dpo_pipeline.pairing.recorded import file_counts, pair_files
from nat_dpo_pipeline.pairing.rules_file import Rules, read_rules
from nat_dpo_pipeline.records.files import ReadFiles, RefusedRecord, files_of
from nat_dpo_pipeline.records.flat_rows import FLAT_ROWS
from nat_dpo_pipeline.records.formats import recognised
from nat_dpo_pipeline.records.pieces import parsed, pieces
from nat_dpo_pipeline.records.turn_rows import TURN_ROWS
from nat_dpo_pipeline.records.values import mapping
from nat_dpo_pipeline.report.summary import listed

_REFUSALS_TOLD = 5
#: Bytes of input from which shards are used unless an engine is named.
LARGE = 256 << 20
_SECONDS_BETWEEN_LINES = 10.0
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@click.command(name="pairs")
@click.argument("files", metavar="FILE…", nargs=-1)
@click.option(
    "-o", "--output", "output_dir", required=True, type=click.Path(file_okay=False), help="Its folder, or a URI of one."
)
@click.option(
    "--rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML: fields of dpo_traj_builder, or a whole configuration with one.",
)
@click.option("--strategy", help="Which candidates of a turn meet.")
@click.option("--min-score-diff", type=float, help="Pairs whose scores differ by less are left out.")
@click.option("--step-name", help="The name of the steps that hold candidates.")
@click.option("-f", "--format", "formats", multiple=True, help="A format's name; can be repeated.  [default: trl]")
@click.option("--validation-fraction", type=float, help="About this share of the prompts is held out.  [default: 0.1]")
@click.option("--seed", type=int, help="Of the split, and of what is drawn.  [default: 0]")
@click.option(
    "--engine",
    type=click.Choice(["auto", "memory", "local", "ray"]),
    default="auto",
    show_default=True,
    help="`local` and `ray` pair in shards, by processes here or on a cluster; auto: from 256 MiB on, and Parquet.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that have the shards.  [default: one a core]")
@click.option("--address", help="Of a Ray cluster that runs already; without it one is started on this machine.")
@click.option("--memory", default="4G", show_default=True, help="What all processes with shards may take together.")
@click.option(
    "--max-bad-share",
    type=click.FloatRange(0, 1),
    help="Shards: the share of rows, and of files, that may be unreadable.  [default: 0.001]",
)
@click.option("--overwrite", is_flag=True, help="Replace shards in the folder that were made of something else.")
@card_options
def pairs_command(**options: object) -> None:
    """Pair recorded candidates and write them in any of the formats that `nat dpo export` has.

    Recognised by content: turn rows and flat rows of candidates, rollouts with a reward (also of NeMo Gym), ATIF
    trajectories with a table of scores, NAT's workflow_output.json, its file exporter and saved /generate/full
    streams, and ATOF events; .gz and .zst too. Rows of candidates are also read from Parquet, folders and URIs, in
    shards (docs/scale.md). Exit code 1 when there is no pair.
    """
    chosen = PairsOptions(**options)  # type: ignore[arg-type]  # click fills them by name
    # What lies under a URI is left to the run in shards.
    with nullcontext() if "://" in chosen.output_dir else nothing_left_on_error(Path(chosen.output_dir)):
        raise SystemExit(run_pairs(chosen))


@dataclass(frozen=True, slots=True)
class PairsOptions:
    """The options of the command, by their names on the command line."""

    files: tuple[str, ...]
    output_dir: str
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
    license_name: str | None = None
    title: str | None = None
    languages: tuple[str, ...] = ()

    def chosen(self) -> Rules:
        """Return the rules with the changes of the command line. Raises ConfigurationError."""
        return (Rules() if self.rules is None else _rules(self.rules)).changed(
            builder={
                "strategy": self.strategy,
                "min_score_diff": self.min_score_diff,
                "ttc_step_name": self.step_name,
                "seed": self.seed,
            },
            trainer={"validation_fraction": self.validation_fraction, "seed": self.seed},
            adapter={
                "formats": list(self.formats) or None,
                "license": self.license_name,
                "title": self.title,
                "languages": list(self.languages) or None,
            },
        )

    def only_for_shards(self) -> list[str]:
        """Return the given options that only a run in shards uses."""
        given = {
            "--workers": self.workers is not None,
            "--address": self.address is not None,
            "--max-bad-share": self.max_bad_share is not None,
            "--overwrite": self.overwrite,
        }
        return [name for name, is_given in given.items() if is_given]


def run_pairs(options: PairsOptions) -> int:
    """Return the exit code: 1 when there is no pair."""
    builder, split, dataset = options.chosen().settings()
    files = options.files or tuple(builder.source or ())
    if not all(files) or not files:
        raise InputError("there is nothing to read: name files of recorded candidates")
    if is_for_shards([*files, *_uris([options.output_dir])], options.engine):
        return run_shards(files, options, builder, split, dataset)
    if ignored := options.only_for_shards():
        say(f"{', '.join(ignored)}: ignored, as these files are paired in memory (--engine)", err=True)
    return _run_in_memory(files_of(files), Path(options.output_dir), builder, split, dataset)


def _run_in_memory(
    paths: Sequence[Path], output_dir: Path, builder: BuilderSettings, split: SplitSettings, dataset: DatasetSettings
) -> int:
    refusals: list[RefusedRecord] = []
    read, paired = pair_files(paths, output_dir, builder, split, dataset, partial(_keep_first, refusals))
    say_all(_summary(read, refusals, paired))
    if not any(paired.written.pairs.values()):
        raise CollectionError(_no_pair(read, paired))
    say_all(_about_an_empty_side(paired, split.validation_fraction))
    return 0


def _rules(path: Path) -> Rules:
    rules = read_rules(path)
    if rules is None:
        from nat_dpo_pipeline.plugin.commands.rules_file import rules_in_configuration

        return rules_in_configuration(path)
    return rules


def _keep_first(refusals: list[RefusedRecord], refusal: RefusedRecord) -> None:
    if len(refusals) < _REFUSALS_TOLD:
        refusals.append(refusal)


def _summary(read: ReadFiles, refusals: Sequence[RefusedRecord], paired: PairedDataset) -> Iterator[str]:
    yield from (f"  {file}" for file in file_counts(read))
    yield from (f"    {refusal}" for refusal in refusals)
    if (more := read.refused.total() - len(refusals)) > 0:
        yield f"    and {number(more)} more"
    yield from (f"  {problem}" for problem in read.problems)
    split = f" ({number(read.turns_split)} split, as their prompts differ)" if read.turns_split else ""
    yield f"  {'candidates':<12}{number(read.candidates):>9}"
    yield f"  {'turns':<12}{number(read.turns):>9}{split}"
    yield from dataset_lines(paired.written, paired.skipped)


def _no_pair(read: ReadFiles, paired: PairedDataset) -> str:
    if not read.candidates:
        why = read.problems[0] if read.problems else listed(read.refused) or "the files hold no candidates"
    else:
        left_out = (paired.skipped, *paired.written.refused.values())
        why = ", ".join(filter(None, map(listed, left_out))) or "every candidate is alone in its turn"
    return f"no pair was made of {number(read.candidates)} candidates: {why}"


def _about_an_empty_side(paired: PairedDataset, fraction: float) -> Iterator[str]:
    empty = [side for side in SplitName if not paired.written.pairs[side]]
    if empty and fraction:
        yield (
            f"  no pair is in {empty[0]}: each prompt's side follows from its text, so with few prompts one side may "
            "be empty; another --seed or --validation-fraction draws anew"
        )


def is_for_shards(files: Sequence[str], engine: str) -> bool:
    """Return True when the inputs are paired in shards: with an engine named, or where memory cannot hold or read them.

    Raises InputError for files that are not there.
    """
    if engine != "auto":
        return engine != "memory"
    if _uris(files) or any(file.endswith(".parquet") or Path(file).is_dir() for file in files):
        return True
    paths = files_of(files)
    if sum(path.stat().st_size for path in paths) < LARGE:
        return False
    return all(map(_can_be_cut, paths))


def _uris(names: Iterable[str]) -> list[str]:
    return [name for name in names if "://" in name]


def _can_be_cut(path: Path) -> bool:
    """Return True when each row names its own turn."""
    kind = recognised(path)
    if kind is FLAT_ROWS:
        _, text = next(pieces(path))
        return {"example_id", "turn_id"} <= mapping(parsed(text)).keys()
    return kind is TURN_ROWS


def run_shards(
    files: Sequence[str],
    chosen: PairsOptions,
    builder: BuilderSettings,
    split: SplitSettings,
    dataset: DatasetSettings,
) -> int:
    """Return the exit code: 1 when there is no pair. Raises InputError, ConfigurationError and OutputError."""
    _check(builder, dataset)
    evaluation = builder.decontaminate_against
    options = ScaleOptions(
        formats=tuple(dataset.formats),
        kind=FileKind.PARQUET if dataset.parquet else FileKind.JSONL,
        validation_fraction=split.validation_fraction,
        seed=split.seed,
        deduplicate=split.deduplicate_pairs,
        max_pairs=split.max_pairs,
        decontamination=None
        if evaluation is None
        else Decontamination(tuple(read_evaluation_texts(evaluation)), builder.decontaminate_ngram),
        memory=bytes_of(chosen.memory),
        workers=chosen.workers,
        engine=EngineName.RAY if chosen.engine == "ray" else EngineName.LOCAL,
        address=chosen.address,
        overwrite=chosen.overwrite,
        about=dataset.about(),
    )
    if chosen.max_bad_share is not None:
        options = replace(options, max_bad_share=chosen.max_bad_share)
    selection = builder.model_copy(update={"decontaminate_against": None}).selection_rules()
    inputs = list(_inputs(files))
    result = shards.pair_files(inputs, chosen.output_dir, builder.pairing_rules(), selection, options, _Progress())
    say_all(f"  {line}" for line in shards.described(result))
    say_all(columns([(f"{name}/", f"{number(rows)} rows") for name, rows in _rows_of(result.files)], left=2))
    if not any(result.pairs.values()):
        why = listed({**result.refused, **result.skipped}) or "every candidate is alone in its turn"
        raise CollectionError(f"no pair was made of {number(result.candidates)} candidates: {why}")
    return 0


def bytes_of(text: str) -> int:
    """Return the bytes of a text such as `4G`, `512M` or `1000000`. Raises ConfigurationError."""
    digits = text.upper().removesuffix("B").removesuffix("I")
    count, unit = (digits[:-1], digits[-1:]) if digits[-1:].isalpha() else (digits, "")
    if not count.isdecimal() or unit not in _UNITS:
        raise ConfigurationError(f"--memory must be like 4G or 512M, got {text!r}")
    return int(count) * _UNITS[unit]


def _check(builder: BuilderSettings, dataset: DatasetSettings) -> None:
    for name, value in (("stratify", dataset.stratify or None), ("single_label_score", dataset.single_label_score)):
        if value is not None:
            raise ConfigurationError(f"{name} is not offered in shards: leave it out, or give --engine memory")
    if not builder.require_multiple_candidates:
        raise ConfigurationError(
            "require_multiple_candidates: false is not offered in shards: leave it out, or give --engine memory"
        )


def _inputs(files: Sequence[str]) -> Iterator[str]:
    """Return the inputs with patterns of local files expanded; URIs and folders are left to the reader."""
    for file in files:
        if "://" in file or Path(file).is_dir():
            yield file
        else:
            yield from map(str, files_of([file]))
    if not files:
        raise InputError("there is nothing to read: name files of recorded candidates")


def _rows_of(files: Sequence[WrittenFile]) -> list[tuple[str, int]]:
    rows: Counter[str] = Counter()
    for file in files:
        rows[file.path.rpartition("/")[0]] += file.rows
    return list(rows.items())


class _Progress:
    """Print to standard error, every ten seconds, the number of finished tasks of a stage."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, tasks: int) -> None:
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            say(f"{stage}: {done:,} of {tasks:,}", err=True)
