"""What a reader of recorded candidates is told, what it hands on, and what a format is."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.records.places import Place


class Record(NamedTuple):
    """One line, array element or document of a file.

    `file` counts the files of one call, `place` tells the records of a file apart. `value` is a JSON value, or text in
    formats that are not JSON.
    """

    file: int
    place: int
    value: object


class Found(NamedTuple):
    """A candidate. It competes with those of the same `scope` and the same prompt."""

    scope: tuple[str, ...]
    candidate: Candidate


class Refused(NamedTuple):
    """Something that claims to be a candidate and is none; `reason` is a RefusalReason."""

    reason: str


Read = Callable[[Record], Iterable[Found | Refused]]


@dataclass(slots=True)
class Shared:
    """What the readers of one call are told, and tell each other.

    `scores` are those of tables, by id; `other_names` the names of steps that hold candidates, but are not asked for.
    """

    step_name: str
    scores: dict[str, object] = field(default_factory=dict)
    other_names: set[str] = field(default_factory=set)


class Cut(StrEnum):
    """What of the files of a format can be read by itself: some lines, a file, or only all files together."""

    LINES = "lines"
    FILES = "files"
    TOGETHER = "together"


@dataclass(frozen=True, slots=True)
class RecordedFormat:
    """One kind of file. `recognises` looks at a record's value; `reader` makes the reader of all its files that are
    not `cut`. Without a reader its records are rows of candidates, whose score is called `score_name`, or become such
    rows by `translate`; `records` reads a file that is neither lines of JSON nor a document of it.

    `is_table`: it holds scores for the candidates of other files, and is read before them. `hint` is what to do when a
    file of it holds no candidates.
    """

    name: str
    looks_like: str
    recognises: Callable[[object], bool]
    reader: Callable[[Shared], Read] | None = None
    cut: Cut = Cut.FILES
    score_name: str = "score"
    translate: Callable[[Mapping[str, object]], Mapping[str, object]] | None = None
    records: Callable[[Place], Iterator[tuple[int, Mapping[str, object]]]] | None = None
    is_json: bool = True
    is_table: bool = False
    hint: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether its lines are rows of candidates as this package writes them."""
        return self.reader is None and self.score_name == "score" and self.translate is None


def named(value: object) -> str | None:
    """An id as text; None where there is none."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
