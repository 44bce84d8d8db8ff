"""Parts of input files, and what was read of them. Light, so that a command can import it."""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.records.places import Place

_MOST_TOLD = 5


def first_line(error: BaseException) -> str:
    """Return what an error says, as far as one line goes."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class InputKind(StrEnum):
    """How the records of a file lie in it: row groups, a line each, or in another way (an array, a document)."""

    PARQUET = "parquet"
    LINES = "lines"
    PIECES = "pieces"


@dataclass(frozen=True, slots=True)
class InputRange:
    """A part of a file, of which `end` is the whole: bytes of lines, row groups of Parquet, or all of any other file.

    `format` is the name of a RecordedFormat, `number` that of the file among those of the run.
    """

    uri: str
    kind: InputKind
    start: int
    stop: int
    end: int
    format: str = ""
    number: int = 0

    @property
    def place(self) -> Place:
        return Place(self.uri)

    def line_id(self, line: int) -> int:
        """Return what tells a line, by its number or offset, from those of all files."""
        return self.number << 44 | line

    @property
    def rest(self) -> "InputRange":
        """The part behind it in its file."""
        return replace(self, start=self.stop, stop=self.end)


@dataclass(frozen=True, slots=True)
class BadInput:
    """Something that could not be read, or is no candidate: a line from 1, or a row group from 0; None for a file."""

    path: str
    line: int | None
    row_group: int | None
    reason: str

    def __str__(self) -> str:
        where = "" if self.line is None else f":{self.line}"
        where += "" if self.row_group is None else f", row group {self.row_group}"
        return f"{self.path}{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class FileCounts:
    """What was read of one file of recorded candidates; `records` are its lines, elements or documents."""

    path: str
    format: str
    records: int
    candidates: int
    refused: Counter[str]

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "refused": dict(self.refused)}

    def __str__(self) -> str:
        refused = f", refused {listed(self.refused)}" if self.refused else ""
        return f"{self.path}: {self.format}, {self.candidates} candidates{refused}"


@dataclass(slots=True)
class ReadCounts:
    """What was read of one file, or of a part of it.

    `refused` counts records that claim to be candidates and are none, `bad_rows` those that cannot be read, `bad_files`
    is 1 for a file that breaks off; `told` are the first of all these.
    """

    records: int = 0
    candidates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    bad_files: int = 0
    told: list[BadInput] = field(default_factory=list)
    most_told: int = _MOST_TOLD

    @property
    def left_out(self) -> Counter[str]:
        """All that is no candidate, by reason."""
        return self.refused + Counter({str(RefusalReason.MALFORMED): self.bad_rows})

    @property
    def has_room(self) -> bool:
        return len(self.told) < self.most_told

    def tell(self, bad: BadInput) -> None:
        if self.has_room:
            self.told.append(bad)

    def add(self, other: "ReadCounts") -> None:
        """Add what was read of another part."""
        self.records += other.records
        self.candidates += other.candidates
        self.refused.update(other.refused)
        self.bad_rows += other.bad_rows
        self.bad_files = max(self.bad_files, other.bad_files)
        self.told = [*self.told, *other.told][: self.most_told]
