"""What a run over files is told, and what it says of itself. Light, so that a command can import it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats.rows import SplitName
from nat_dpo_pipeline.dataset.writer import Target, WrittenDataset
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.records.ranges import BadInput, FileCounts
from nat_dpo_pipeline.strict import DEFAULT_STEP_NAME

#: Is told the name of a stage, how many of its tasks are done, and how many there are.
Progress = Callable[[str, int, int], None]


class FileKind(StrEnum):
    """What pairs are written to."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class EngineName(StrEnum):
    """What does the tasks of a run: this process, which makes one dataset of them, or others, which make shards."""

    MEMORY = "memory"
    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Decontamination:
    """Texts that no prompt may overlap with, as `core.decontamination.EvaluationSet` has it."""

    texts: Sequence[str]
    ngram: int = 13


_SHARE_OF_SHARDS = 0.001


@dataclass(frozen=True, slots=True)
class PairingOptions:
    """How a run over files goes. Raises ConfigurationError on what no run could meet.

    `exact_split` holds out exactly the share of the prompts, of all or with `stratify` of each subtopic; else each
    prompt's side follows from its text alone. `single_label_score` makes rows of answers that are alone in their turn.
    `memory` is what all workers together may take, in bytes, their start not counted. At most `shard_bytes` of input,
    decompressed, become one shard, fewer where memory asks for it or where there is little input. `workers` is one a
    core when None.
    `columns` maps roles to the columns of tables (`records.mapping`).
    `max_bad_share` is the share of rows, and of files, that may be unreadable: 0.001 of shards, else any. `retries` is
    how often a shard is done again after the process that had it died. `address` is that of a Ray cluster; without one
    a local one is started.
    `scattered`: the candidates of a turn are known not to follow one another, which is otherwise found out.
    """

    formats: tuple[str, ...] = ("trl",)
    kind: FileKind = FileKind.JSONL
    validation_fraction: float = 0.1
    seed: int = 0
    exact_split: bool = False
    stratify: bool = False
    deduplicate: bool = False
    max_pairs: int | None = None
    single_label_score: float | None = None
    decontamination: Decontamination | None = None
    step_name: str = DEFAULT_STEP_NAME
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_bad_share: float | None = None
    memory: int = 4 << 30
    shard_bytes: int = 32 << 20
    workers: int | None = None
    engine: EngineName = EngineName.LOCAL
    address: str | None = None
    retries: int = 3
    scattered: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ConfigurationError(
                f"validation_fraction must be at least 0 and below 1, got {self.validation_fraction!r}"
            )
        if self.max_bad_share is not None and not 0.0 <= self.max_bad_share <= 1.0:
            raise ConfigurationError(f"max_bad_share must be between 0 and 1, got {self.max_bad_share!r}")
        if self.memory < (64 << 20):
            raise ConfigurationError(f"memory must be at least 64 MiB, got {self.memory!r} bytes")
        for name, least in (("shard_bytes", 1), ("workers", 1), ("max_pairs", 1), ("retries", 0)):
            if (given := getattr(self, name)) is not None and given < least:
                raise ConfigurationError(f"{name} must be at least {least}, got {given!r}")

    @property
    def is_split_late(self) -> bool:
        """Whether all prompts must be known before any is held out."""
        return (self.exact_split or self.stratify) and self.validation_fraction > 0

    @property
    def most_bad(self) -> float:
        """The share of rows and of files that may be unreadable."""
        if self.max_bad_share is not None:
            return self.max_bad_share
        return 1.0 if self.engine is EngineName.MEMORY else _SHARE_OF_SHARDS


@dataclass(frozen=True, slots=True)
class Written:
    """What a dataset says besides its pairs: its card, its training configurations, and how its input was made.

    `needs_rows`: a dataset in this process without any row is not written, and an older one stays in its place.
    """

    target: Target = field(default_factory=Target)
    configuration: Mapping[str, object] = field(default_factory=dict)
    with_candidates: bool = False
    needs_rows: bool = False


@dataclass(frozen=True, slots=True)
class PairedFiles:
    """What a run left behind. `skipped` counts pairs, `refused` candidates, by reason; `bad` are the first of them.

    `read` is what was read of each file. `shards` are how many there are, `resumed` how many of them were there before;
    `dataset` is what was written, where it is not in shards and holds a row.
    """

    folder: str
    manifest: str
    files: Sequence[WrittenFile]
    pairs: Mapping[SplitName, int]
    candidates: int
    turns: int
    skipped: Mapping[str, int]
    refused: Mapping[str, int]
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    turns_split: int = 0
    bad_rows: int = 0
    bad: Sequence[BadInput] = ()
    read: Sequence[FileCounts] = ()
    problems: Sequence[str] = ()
    scattered: bool = False
    shards: int = 0
    resumed: int = 0
    dataset: WrittenDataset | None = None
    has_calls: bool = False

    @property
    def has_rows(self) -> bool:
        """True when there is something to train on: pairs, or rows of single answers."""
        return any(file.rows for file in self.files)
