"""Files of any format → turns, in memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from sys import maxsize

from nat_dpo_pipeline.core.candidates import Turn
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.records.columns import Columns, Turns, contiguous_turns, gathered, joined
from nat_dpo_pipeline.records.inputs import counted_files, files_found, problems_of, read_sources
from nat_dpo_pipeline.records.ranges import BadInput, FileCounts, ReadCounts
from nat_dpo_pipeline.records.reader import Reader
from nat_dpo_pipeline.records.values import Shared

_NO_COLUMNS: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class ReadTurns:
    """The turns of all files in the order in which they began, what was read of each file, and all that is none."""

    found: Turns | None
    files: Sequence[FileCounts]
    bad: Sequence[BadInput]
    problems: Sequence[str]

    def __iter__(self) -> Iterator[Turn]:
        return iter(()) if self.found is None else self.found.each()

    @property
    def candidates(self) -> int:
        return 0 if self.found is None else len(self.found.columns)

    @property
    def turns_split(self) -> int:
        return 0 if self.found is None else self.found.split


def read_turns(
    inputs: Sequence[str],
    step_name: str,
    is_stopped: Callable[[], bool] = lambda: False,
    *,
    columns: Mapping[str, tuple[str, ...]] = _NO_COLUMNS,
    most_told: int = maxsize,
) -> ReadTurns:
    """Read files, patterns, folders and URIs. Raises InputError for what cannot be read, and when it is stopped."""
    sources = read_sources(files_found(inputs), step_name, columns=columns)
    shared = Shared(step_name, sources.scores)
    reader = Reader(shared, with_raw=True)
    counts: dict[int, ReadCounts] = {}
    blocks: list[Columns] = []
    for source in sources.ranges:
        read = counts.setdefault(source.number, ReadCounts(most_told=most_told))
        for block in reader.columns(source, read):
            if is_stopped():
                raise InputError("reading was stopped")
            blocks.append(block)
    if sources.bad:
        raise InputError(str(sources.bad[0]))
    found = counted_files(sources.files, counts)
    bad = [told for number in sorted(counts) for told in counts[number].told]
    turns = contiguous_turns(gathered(joined(blocks))) if blocks else None
    return ReadTurns(turns, found, bad, list(problems_of(found, step_name, shared.other_names)))
