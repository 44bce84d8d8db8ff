"""`nat dpo pairs` from files to files, for what does not fit in memory."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nat_dpo_pipeline.cli.saying import say
from nat_dpo_pipeline.cli.telling import columns, number
from nat_dpo_pipeline.dataset.evaluation_rows import read_evaluation_texts
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.errors import CollectionError, ConfigurationError, InputError
from nat_dpo_pipeline.pairing.api import described, pair_files
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.options import Decontamination, EngineName, FileKind, ScaleOptions
from nat_dpo_pipeline.records.files import files_of
from nat_dpo_pipeline.records.flat_rows import FLAT_ROWS
from nat_dpo_pipeline.records.formats import recognised
from nat_dpo_pipeline.records.pieces import parsed, pieces
from nat_dpo_pipeline.records.turn_rows import TURN_ROWS
from nat_dpo_pipeline.records.values import mapping
from nat_dpo_pipeline.report.summary import listed

#: Bytes of input from which shards are used unless an engine is named.
LARGE = 256 << 20
_SECONDS_BETWEEN_LINES = 10.0
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class ShardOptions:
    """What the command line says of shards."""

    engine: str = "auto"
    workers: int | None = None
    address: str | None = None
    memory: str = "4G"
    max_bad_share: float | None = None
    overwrite: bool = False


def is_for_shards(files: Sequence[str], engine: str) -> bool:
    """Whether the inputs are paired in shards: when that is said, or when nothing else can be done with them.

    Raises InputError for files that are not there.
    """
    if engine != "auto":
        return engine != "memory"
    if any("://" in file or file.endswith(".parquet") or Path(file).is_dir() for file in files):
        return True
    paths = files_of(files)
    if sum(path.stat().st_size for path in paths) < LARGE:
        return False
    return all(map(_can_be_cut, paths))


def _can_be_cut(path: Path) -> bool:
    """Whether each row says by itself which turn it is of."""
    kind = recognised(path)
    if kind is FLAT_ROWS:
        _, text = next(pieces(path))
        return {"example_id", "turn_id"} <= mapping(parsed(text)).keys()
    return kind is TURN_ROWS


def run_shards(
    files: Sequence[str],
    output_dir: Path,
    builder: BuilderSettings,
    split: SplitSettings,
    dataset: DatasetSettings,
    shards: ShardOptions,
) -> int:
    """The exit code: 1 when there is no pair. Raises InputError, ConfigurationError and OutputError."""
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
        memory=bytes_of(shards.memory),
        workers=shards.workers,
        engine=EngineName.RAY if shards.engine == "ray" else EngineName.LOCAL,
        address=shards.address,
        overwrite=shards.overwrite,
    )
    if shards.max_bad_share is not None:
        options = replace(options, max_bad_share=shards.max_bad_share)
    selection = builder.model_copy(update={"decontaminate_against": None}).selection_rules()
    inputs = list(_inputs(files))
    result = pair_files(inputs, str(output_dir), builder.pairing_rules(), selection, options, _Told())
    for line in described(result):
        say(f"  {line}")
    for line in columns([(f"{name}/", f"{number(rows)} rows") for name, rows in _rows_of(result.files)], left=2):
        say(line)
    if not any(result.pairs.values()):
        why = listed({**result.refused, **result.skipped}) or "every candidate is alone in its turn"
        raise CollectionError(f"no pair was made of {number(result.candidates)} candidates: {why}")
    return 0


def bytes_of(text: str) -> int:
    """The bytes that a text such as `4G`, `512M` or `1000000` says. Raises ConfigurationError."""
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
    """Patterns of local files are expanded; URIs and folders are for the room to read."""
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


class _Told:
    """Says on standard error, now and then, how many tasks of a stage are done."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, tasks: int) -> None:
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            say(f"{stage}: {done:,} of {tasks:,}", err=True)
