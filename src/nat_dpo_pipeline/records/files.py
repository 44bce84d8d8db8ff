"""Files of recorded candidates to turns, with what was read of each and what was refused."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.errors import CandidateRefused, InputError
from nat_dpo_pipeline.records.atif import ATIF
from nat_dpo_pipeline.records.formats import recognised
from nat_dpo_pipeline.records.pieces import parsed, pieces
from nat_dpo_pipeline.records.score_match import check_scores
from nat_dpo_pipeline.records.spool import CandidateSpool
from nat_dpo_pipeline.records.values import Found, Read, Record, RecordedFormat, Refused, Shared


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """Something in a file that holds no candidate, although it should."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(slots=True)
class ReadFile:
    """What was in one file; the format is None where it held nothing."""

    path: Path
    format: RecordedFormat | None
    records: int = 0
    candidates: int = 0
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """What was in all files, in the order in which they were given."""

    files: Sequence[ReadFile]
    turns: int
    turns_split: int
    problems: Sequence[str]

    @property
    def candidates(self) -> int:
        return sum(file.candidates for file in self.files)

    @property
    def refused(self) -> Counter[str]:
        return sum((file.refused for file in self.files), Counter())


OnRefusal = Callable[[RefusedRecord], object]


def files_of(patterns: Iterable[str | Path]) -> list[Path]:
    """The files that are named, patterns such as `runs/*.jsonl` expanded, each once. Raises InputError for none."""
    found: dict[str, Path] = {}
    for pattern in patterns:
        paths = _matching(str(pattern))
        if not paths:
            raise InputError(f"there is no file {str(pattern)!r} to read recorded candidates from")
        for path in paths:
            if path.is_dir():
                raise InputError(f"{str(path)!r} is a folder: name the files in it, as in '{path}/*.jsonl'")
            # Path.resolve raises RuntimeError for a link to itself until Python 3.12.
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _matching(pattern: str) -> list[Path]:
    # A file may have a bracket or a star in its name.
    if Path(pattern).exists():
        return [Path(pattern)]
    return sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207 - Path.glob takes no absolute pattern


def read_files(
    paths: Sequence[Path],
    step_name: str,
    spool: CandidateSpool,
    on_refusal: OnRefusal = lambda _: None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> ReadFiles:
    """Put the candidates of the files into the spool; files may be of different formats.

    Steps hold candidates when they are called `step_name`. Memory grows by a few hundred bytes a turn. Raises
    InputError for a file that cannot be read or is in no known format, before anything of any file is taken, for a
    table of scores that matches no trajectory, and when it is stopped.
    """
    files = [ReadFile(path, recognised(path)) for path in paths]
    shared = Shared(step_name)
    readers: dict[str, Read] = {}

    def read_file(number: int, file: ReadFile, kind: RecordedFormat) -> None:
        read = readers.setdefault(kind.name, kind.reader(shared))
        for record in _records(file, kind, number):
            if is_stopped():
                raise InputError("reading was stopped")
            for reason in _taken(file, kind, record, read, spool):
                file.refused[reason] += 1
                on_refusal(RefusedRecord(file.path, record.line, reason))

    known = [(number, file, file.format) for number, file in enumerate(files) if file.format is not None]
    # Scores must be known when the trajectories are read.
    for number, file, kind in known:
        if kind.is_table:
            read_file(number, file, kind)
    check_scores(shared.scores, [file.path for _, file, kind in known if kind is ATIF])
    for number, file, kind in known:
        if not kind.is_table:
            read_file(number, file, kind)
    return ReadFiles(files, len(spool), spool.turns_split(), list(_problems(files, shared)))


def _records(file: ReadFile, kind: RecordedFormat, number: int) -> Iterator[Record]:
    for line, text in pieces(file.path):
        file.records += 1
        yield Record(number, line, parsed(text) if kind.is_json else text.decode(errors="replace").strip())


def _taken(file: ReadFile, kind: RecordedFormat, record: Record, read: Read, spool: CandidateSpool) -> Iterator[str]:
    """Put the candidates of a record into the spool; what comes out are the reasons of those that are none."""
    if not isinstance(record.value, dict if kind.is_json else str):
        yield str(RefusalReason.MALFORMED)
        return
    for found in read(record):
        if isinstance(found, Refused):
            yield str(found.reason)
        else:
            try:
                spool.add(Found((kind.name, *found.scope), found.candidate))
                file.candidates += 1
            except CandidateRefused as refused:
                yield str(refused.reason)


def _problems(files: Sequence[ReadFile], shared: Shared) -> Iterator[str]:
    for file in files:
        if file.format is None:
            yield f"{file.path} holds nothing"
        elif not file.candidates and not file.format.is_table and not shared.other_names and file.format.hint:
            yield f"{file.path} holds no candidates: {file.format.hint}"
    if shared.other_names and any(file.format and not file.format.is_table and not file.candidates for file in files):
        names = ", ".join(map(repr, sorted(shared.other_names)))
        yield f"no step is called {shared.step_name!r}, but there are {names}: set ttc_step_name (--step-name)"
