"""What a process is told to do with a part of the input, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats.rows import SplitName
from nat_dpo_pipeline.pairing.facts import Wanted
from nat_dpo_pipeline.pairing.options import FileKind
from nat_dpo_pipeline.records.places import Place
from nat_dpo_pipeline.records.ranges import InputRange, ReadCounts


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of a run have in common.

    `folders` are those of the formats, `state` that of what only the run itself needs. `is_whole`: there is one task,
    and each side of a format is one file.
    """

    rules: PairingRules
    formats: tuple[str, ...]
    kind: FileKind
    validation_fraction: float
    seed: int
    single_label_score: float | None
    is_split_late: bool
    wanted: Wanted
    is_decontaminated: bool
    step_name: str
    with_raw: bool
    with_candidates: bool
    is_whole: bool
    folders: Mapping[str, Place]
    state: Place


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that were partitioned: the number of the partition, of so many, in each of the files."""

    number: int
    partitions: int


@dataclass(frozen=True, slots=True)
class PartitionTask:
    """Rows of ranges to partitions by their turns."""

    job: Job
    number: int
    sources: Sequence[InputRange]
    partitions: int


@dataclass(frozen=True, slots=True)
class PairTask:
    """A shard: pairs of the turns in its sources, as facts, as rows, or both; with verdicts only those kept."""

    job: Job
    number: int
    sources: Sequence[InputRange] | Sequence[Part]
    with_facts: bool
    with_rows: bool
    with_verdicts: bool


Task = PartitionTask | PairTask


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task. `pairs_made` are those before the whole run's rules; `parts` the files of partitions.

    `read` is what was read, by the number of the file; `other_names` are those of steps that hold candidates, but are
    not asked for.
    """

    number: int
    is_scattered: bool = False
    candidates: int = 0
    turns: int = 0
    pairs_made: int = 0
    pairs: Mapping[SplitName, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    files: Sequence[WrittenFile] = ()
    parts: Sequence[str] = ()
    turns_split: int = 0
    read: Mapping[int, ReadCounts] = field(default_factory=dict)
    other_names: Sequence[str] = ()
    has_calls: bool = False
