"""Parts of input files, and what cannot be read of them."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

import pyarrow

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.records.bad_input import BadInput
from nat_dpo_pipeline.records.places import Place

#: What reading a file may raise when the file is damaged, or holds what Python has no value for (a date of year 0).
UNREADABLE = (pyarrow.ArrowException, OSError, EOFError, ValueError, OverflowError)
_MOST_TOLD = 5


def first_line(error: BaseException) -> str:
    """What an error says, as far as one line goes."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class InputKind(StrEnum):
    """How rows are stored."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def is_compressed(self) -> bool:
        return self in (InputKind.GZIP, InputKind.ZSTD)


_SUFFIXES = {
    ".parquet": InputKind.PARQUET,
    ".jsonl": InputKind.JSONL,
    ".ndjson": InputKind.JSONL,
    ".jsonl.gz": InputKind.GZIP,
    ".jsonl.zst": InputKind.ZSTD,
}


def kind_of(name: str) -> InputKind:
    """By the end of a file's name. Raises ConfigurationError for one that says nothing."""
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise ConfigurationError(f"{name!r} is not read at this scale: a name must end with {', '.join(_SUFFIXES)}")


def is_known(name: str) -> bool:
    """Whether the name is that of an input."""
    return name.endswith(tuple(_SUFFIXES))


@dataclass(frozen=True, slots=True)
class InputRange:
    """A part of a file, of which `end` is the whole: bytes of JSONL, row groups of Parquet; all of a compressed one."""

    uri: str
    kind: InputKind
    start: int
    stop: int
    end: int

    @property
    def place(self) -> Place:
        return Place(self.uri)

    @property
    def rest(self) -> "InputRange":
        """What comes behind it in its file."""
        return replace(self, start=self.stop, stop=self.end)


@dataclass(slots=True)
class Troubles:
    """What could not be read, the first of it in words."""

    rows: int = 0
    files: int = 0
    told: list[BadInput] = field(default_factory=list)

    @property
    def has_room(self) -> bool:
        return len(self.told) < _MOST_TOLD

    def tell(self, bad: BadInput) -> None:
        if self.has_room:
            self.told.append(bad)
