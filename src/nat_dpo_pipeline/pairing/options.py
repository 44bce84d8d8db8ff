"""What a run over files is told, and what it says of itself. Light, so that a command can import it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nat_dpo_pipeline.dataset.card import About
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats.rows import SplitName
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.records.bad_input import BadInput


class FileKind(StrEnum):
    """What pairs are written to."""

    JSONL = "jsonl"
    PARQUET = "parquet"


class EngineName(StrEnum):
    """What carries shards to processes."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class Decontamination:
    """Texts that no prompt may overlap with, as `core.decontamination.EvaluationSet` has it."""

    texts: Sequence[str]
    ngram: int = 13


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """How a run over files goes. Raises ConfigurationError on what no run could meet.

    `memory` is what all workers together may take, in bytes, their start not counted. At most `shard_bytes` of input,
    decompressed, become one shard, fewer where memory asks for it or where there is little input. `workers` is one a
    core when None.
    `max_bad_share` is the share of rows, and of files, that may be unreadable. `retries` is how often a shard is done
    again after the process that had it died. `address` is that of a Ray cluster; without one a local one is started.
    `about` is for the card.
    `scattered`: the candidates of a turn are known not to follow one another, which is otherwise found out.
    """

    formats: tuple[str, ...] = ("trl",)
    kind: FileKind = FileKind.JSONL
    validation_fraction: float = 0.1
    seed: int = 0
    deduplicate: bool = False
    max_pairs: int | None = None
    decontamination: Decontamination | None = None
    max_bad_share: float = 0.001
    memory: int = 4 << 30
    shard_bytes: int = 32 << 20
    workers: int | None = None
    engine: EngineName = EngineName.LOCAL
    address: str | None = None
    retries: int = 3
    scattered: bool = False
    overwrite: bool = False
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ConfigurationError(
                f"validation_fraction must be at least 0 and below 1, got {self.validation_fraction!r}"
            )
        if not 0.0 <= self.max_bad_share <= 1.0:
            raise ConfigurationError(f"max_bad_share must be between 0 and 1, got {self.max_bad_share!r}")
        if self.memory < (64 << 20):
            raise ConfigurationError(f"memory must be at least 64 MiB, got {self.memory!r} bytes")
        for name, least in (("shard_bytes", 1), ("workers", 1), ("max_pairs", 1), ("retries", 0)):
            if (given := getattr(self, name)) is not None and given < least:
                raise ConfigurationError(f"{name} must be at least {least}, got {given!r}")


@dataclass(frozen=True, slots=True)
class ScaleResult:
    """What a run left behind. `skipped` counts pairs, `refused` candidates, by reason; `bad` are the first of them.

    `shards` are how many there are, `resumed` how many of them were there before.
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
    bad_rows: int = 0
    bad: Sequence[BadInput] = ()
    scattered: bool = False
    shards: int = 0
    resumed: int = 0
