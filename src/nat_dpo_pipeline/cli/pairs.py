"""`nat dpo pairs`: recorded candidates to a dataset of pairs."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import click

from nat_dpo_pipeline.cli.options import card_options
from nat_dpo_pipeline.cli.output import nothing_left_on_error
from nat_dpo_pipeline.cli.summaries import columns, counted, dataset_lines, in_words, number
from nat_dpo_pipeline.cli.terminal import say, say_all
from nat_dpo_pipeline.cli.threads import without_blas_threads
from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats import SplitName
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError, InputError
from nat_dpo_pipeline.pairing.api import pair_as_set
from nat_dpo_pipeline.pairing.options import EngineName, PairedFiles, PairingOptions
from nat_dpo_pipeline.pairing.rules_file import Rules, read_rules
from nat_dpo_pipeline.records.inputs import files_found
from nat_dpo_pipeline.records.mapping import parse_mapping
from nat_dpo_pipeline.redacted import redacted

_FILES_TOLD = 20
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
@click.option(
    "--map", "mapping", help="Columns of tables by role: prompt=question,response=a+b,score=rating,group=task."
)
@click.option("--strategy", help="Which candidates of a turn meet.")
@click.option("--min-score-diff", type=float, help="Pairs whose scores differ by less are left out.")
@click.option("--at", help="Where rollouts become turns: divergence, every, first or last reply.")
@click.option("--min-rollouts", type=int, help="Replies with fewer rollouts behind them are left out.")
@click.option("--step-name", help="The name of the steps that hold candidates.")
@click.option("-f", "--format", "formats", multiple=True, help="A format's name; can be repeated.  [default: trl]")
@click.option("--validation-fraction", type=float, help="About this share of the prompts is held out.  [default: 0.1]")
@click.option("--seed", type=int, help="Of the split, and of what is drawn.  [default: 0]")
@click.option(
    "--engine",
    type=click.Choice(["auto", "memory", "local", "ray"]),
    default="auto",
    show_default=True,
    help="`local` and `ray` pair in shards, by processes here or on a cluster; auto: from 256 MiB on, and URIs.",
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
    streams, and ATOF events; .gz and .zst too, and rows of candidates in Parquet; patterns, folders and URIs. What is
    large becomes shards (docs/scale.md). Exit code 1 when there is no pair.
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
    mapping: str | None = None
    strategy: str | None = None
    min_score_diff: float | None = None
    at: str | None = None
    min_rollouts: int | None = None
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
    render: str | None = None
    license_name: str | None = None
    title: str | None = None
    languages: tuple[str, ...] = ()

    def chosen(self) -> Rules:
        """Return the rules with the changes of the command line. Raises ConfigurationError."""
        return (Rules() if self.rules is None else _rules(self.rules)).changed(
            builder={
                "map": None if self.mapping is None else {k: list(v) for k, v in parse_mapping(self.mapping).items()},
                "strategy": self.strategy,
                "min_score_diff": self.min_score_diff,
                "at": self.at,
                "min_rollouts": self.min_rollouts,
                "ttc_step_name": self.step_name,
                "seed": self.seed,
            },
            trainer={"validation_fraction": self.validation_fraction, "seed": self.seed},
            adapter={
                "formats": list(self.formats) or None,
                "render": self.render,
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


def run_pairs(chosen: PairsOptions) -> int:
    """Return the exit code: 1 when there is no pair."""
    settings = chosen.chosen().settings()
    builder, split, dataset = settings
    files = chosen.files or tuple(builder.source or ())
    if not all(files) or not files:
        raise InputError("there is nothing to read: name files of recorded candidates")
    engine = engine_for([*files, *([chosen.output_dir] if "://" in chosen.output_dir else [])], chosen.engine)
    if engine is EngineName.MEMORY and (ignored := chosen.only_for_shards()):
        say(f"{', '.join(ignored)}: ignored, as one process pairs these files (--engine)", err=True)
    options = PairingOptions(
        memory=bytes_of(chosen.memory),
        workers=chosen.workers,
        engine=engine,
        address=chosen.address,
        overwrite=chosen.overwrite,
        max_bad_share=None if engine is EngineName.MEMORY else chosen.max_bad_share,
    )
    configuration = {
        "trajectory_builder": redacted(builder),
        "trainer": redacted(split),
        "trainer_adapter": redacted(dataset),
    }
    without_blas_threads()
    result = pair_as_set(
        files,
        chosen.output_dir,
        settings,
        options,
        _Progress(),
        configuration,
        with_candidates=True,
        needs_rows=True,
    )
    say_all(_summary(result))
    if not result.has_rows:
        raise CollectionError(_no_row(result))
    say_all(_about_an_empty_side(result, split.validation_fraction))
    return 0


def engine_for(files: Sequence[str], engine: str) -> EngineName:
    """Return the engine that was named, or else shards for what is far away or large.

    Raises InputError for files that are not there.
    """
    if engine != "auto":
        return EngineName(engine)
    is_far = any("://" in file for file in files)
    is_large = is_far or sum(file.size for file in files_found(files)) >= LARGE
    return EngineName.LOCAL if is_large else EngineName.MEMORY


def _rules(path: Path) -> Rules:
    rules = read_rules(path)
    if rules is None:
        from nat_dpo_pipeline.plugin.commands.rules_file import rules_in_configuration

        return rules_in_configuration(path)
    return rules


def _summary(result: PairedFiles) -> Iterator[str]:
    yield from (f"  {file}" for file in result.read[:_FILES_TOLD])
    if (more := len(result.read) - _FILES_TOLD) > 0:
        yield f"  and {number(more)} more files"
    yield from (f"    {one}" for one in result.bad[:_REFUSALS_TOLD])
    if (more := sum(result.refused.values()) + result.bad_rows - _REFUSALS_TOLD) > 0:
        yield f"    and {number(more)} more"
    yield from (f"  {problem}" for problem in result.problems)
    split = f" ({number(result.turns_split)} split, as their prompts differ)" if result.turns_split else ""
    yield f"  {'candidates':<12}{number(result.candidates):>9}"
    yield f"  {'turns':<12}{number(result.turns):>9}{split}"
    yield from dataset_lines(result)
    if result.dataset is None and result.has_rows:
        again = f", {number(result.resumed)} of them made before" if result.resumed else ""
        yield f"  {number(len(result.files))} files of {number(result.shards)} shards in {result.folder}{again}"
        yield from columns([(f"{name}/", f"{number(rows)} rows") for name, rows in _rows_of(result.files)], left=2)


def _no_row(result: PairedFiles) -> str:
    if pairs := sum(result.pairs.values()):
        why = "; ".join(f"{name}: {in_words(reasons)}" for name, reasons in result.left_out.items())
        return f"no row was made of {counted(pairs, 'pair')}: {why}"
    if not result.candidates:
        refused = {**result.refused, **({"malformed": result.bad_rows} if result.bad_rows else {})}
        why = result.problems[0] if result.problems else listed(refused) or "the files hold no candidates"
    else:
        left_out = (result.skipped, *result.left_out.values())
        why = ", ".join(filter(None, map(listed, left_out))) or "every candidate is alone in its turn"
    return f"no pair was made of {number(result.candidates)} candidates: {why}"


def _about_an_empty_side(result: PairedFiles, fraction: float) -> Iterator[str]:
    empty = [side for side in SplitName if not result.pairs.get(side)]
    if empty and fraction:
        yield (
            f"  no pair is in {empty[0]}: each prompt's side follows from its text, so with few prompts one side may "
            "be empty; another --seed or --validation-fraction draws anew"
        )


def bytes_of(text: str) -> int:
    """Return the bytes of a text such as `4G`, `512M` or `1000000`. Raises ConfigurationError."""
    digits = text.upper().removesuffix("B").removesuffix("I")
    count, unit = (digits[:-1], digits[-1:]) if digits[-1:].isalpha() else (digits, "")
    if not count.isdecimal() or unit not in _UNITS:
        raise ConfigurationError(f"--memory must be like 4G or 512M, got {text!r}")
    return int(count) * _UNITS[unit]


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
