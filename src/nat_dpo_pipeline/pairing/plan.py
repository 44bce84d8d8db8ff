"""How a run is cut into tasks, and what tells whether another run is the same."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import orjson

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.dataset.manifest import GENERATOR
from nat_dpo_pipeline.pairing.options import PairingOptions
from nat_dpo_pipeline.records.formats import format_named
from nat_dpo_pipeline.records.inputs import InputFile, read_sources
from nat_dpo_pipeline.records.ranges import BadInput, FileCounts, InputKind, InputRange, ReadCounts
from nat_dpo_pipeline.records.reader import Reader
from nat_dpo_pipeline.records.values import Cut, Shared

# What a shard takes in memory, in sizes of its input: texts, their JSON, the rows of some turns.
_COPIES = 6
# Little input is cut finer, so that all processes end at about the same time; but not into crumbs.
_SHARDS_OF_LITTLE = 16
_LEAST_OF_LITTLE = 4 << 20
_BYTES_LOOKED_AT = 1 << 18
_MOST_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """The tasks of a run, each of which reads some ranges, one after the other.

    `identity` is all that determines its output besides how it is cut. `files` are all files, of which `bad` ones are
    not read; `scores` are those of tables, which are kept elsewhere.
    """

    identity: Mapping[str, Any]
    tasks: Sequence[Sequence[InputRange]]
    partitions: int
    is_scattered: bool
    files: Sequence[FileCounts]
    bad: Sequence[BadInput]
    scores: Mapping[str, object]

    def scattered(self) -> "Plan":
        return replace(self, is_scattered=True)


def identity_of(
    files: Sequence[InputFile], rules: PairingRules, selection: SelectionRules, options: PairingOptions
) -> dict[str, Any]:
    """All that determines the output but for where shards begin."""
    unsaid = ("max_bad_share", "memory", "shard_bytes", "workers", "engine", "address", "retries", "overwrite")
    told = {one.name: getattr(options, one.name) for one in fields(options) if one.name not in unsaid}
    against = told.pop("decontamination")
    if against is not None:
        texts = orjson.dumps([text.encode(errors="surrogatepass").hex() for text in against.texts])
        told["decontamination"] = {"ngram": against.ngram, "sha256": sha256(texts).hexdigest()}
    identity = {
        "version": version(GENERATOR),
        "inputs": [asdict(file) for file in files],
        "rules": {one.name: getattr(rules, one.name) for one in fields(rules) if one.init},
        "selection": {one.name: getattr(selection, one.name) for one in fields(selection) if one.name != "evaluation"},
        "options": told,
    }
    return orjson.loads(orjson.dumps(identity))  # type: ignore[no-any-return]  # as it will be read


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """What is not the same, in words; None when nothing is."""
    if one["inputs"] != other["inputs"]:
        files, others = ({file["uri"]: file for file in each["inputs"]} for each in (one, other))
        changed = next((uri for uri in {**files, **others} if files.get(uri) != others.get(uri)), "their order")
        return f"the input {changed!r}"
    for part in ("rules", "selection", "options"):
        for name, value in one[part].items():
            if other[part].get(name) != value:
                return f"{name}, now {value!r} and then {other[part].get(name)!r}"
    return None if one["version"] == other["version"] else f"the version, then {other['version']}"


def planned(
    files: Sequence[InputFile], identity: Mapping[str, Any], options: PairingOptions, workers: int, *, is_whole: bool
) -> Plan:
    """The tasks over all files, one if it `is_whole`. Raises InputError for a file that is in no known format."""
    small = max(sum(file.size for file in files) // _SHARDS_OF_LITTLE, _LEAST_OF_LITTLE)
    at_once = max(min(options.shard_bytes, options.memory // (workers * _COPIES), small), 1)
    sources = read_sources(files, options.step_name, sys.maxsize if is_whole else at_once, options.columns)
    tasks = (
        ([list(sources.ranges)] if sources.ranges else []) if is_whole else list(_tasks(sources.ranges, files, at_once))
    )
    is_scattered = options.scattered or _meet_in_several(sources.ranges, options.step_name)
    partitions = max(-(-sources.total_bytes // at_once), 1)
    return Plan(identity, tasks, partitions, is_scattered, sources.files, sources.bad, sources.scores)


def _tasks(ranges: Sequence[InputRange], files: Sequence[InputFile], at_once: int) -> Iterator[list[InputRange]]:
    """Small files are a task together, and so are all that must be read together."""
    task: list[InputRange] = []
    held = 0
    for one in ranges:
        size = files[one.number].size * (one.stop - one.start) // max(one.end, 1)
        if task and held + size > at_once and not (_is_together(one) and one.format == task[-1].format):
            yield task
            task, held = [], 0
        task.append(one)
        held += size
    if task:
        yield task


def _is_together(one: InputRange) -> bool:
    return bool(one.format) and format_named(one.format).cut is Cut.TOGETHER


def _meet_in_several(ranges: Sequence[InputRange], step_name: str) -> bool:
    """Whether the first turn of some file goes on in another: a quick look, as shards look at all of their turns."""
    firsts = [one for one in ranges if one.start == 0 and one.kind is not InputKind.PIECES][:_MOST_LOOKED_AT]
    reader = Reader(Shared(step_name), with_raw=False)
    seen: set[object] = set()
    for one in firsts if len(firsts) > 1 else ():
        block = next(iter(reader.columns(one, ReadCounts(), _BYTES_LOOKED_AT)), None)
        if block is None:
            continue
        keys = {block.key(row) for row in range(len(block)) if block.line[row] < 0}
        if not keys.isdisjoint(seen):
            return True
        seen |= keys
    return False
