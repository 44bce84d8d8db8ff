"""How a run is cut into shards, and what tells whether another run is the same."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import orjson

from nat_dpo_pipeline.core.pairs import PairingRules
from nat_dpo_pipeline.core.selection import SelectionRules
from nat_dpo_pipeline.dataset.manifest import GENERATOR
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.pairing.options import ScaleOptions
from nat_dpo_pipeline.records import row_groups
from nat_dpo_pipeline.records.bad_input import BadInput
from nat_dpo_pipeline.records.places import Place, checked_input
from nat_dpo_pipeline.records.ranges import UNREADABLE, InputKind, InputRange, Troubles, first_line, is_known, kind_of
from nat_dpo_pipeline.records.whole_turns import read_columns

# What a shard takes in memory, in sizes of its input: texts, their JSON, the rows of some turns.
_COPIES = 6
# Little input is cut finer, so that all processes end at about the same time; but not into crumbs.
_SHARDS_OF_LITTLE = 16
_LEAST_OF_LITTLE = 4 << 20
_BYTES_LOOKED_AT = 1 << 18
_MOST_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file as it was when the run was planned. `modified` is in nanoseconds."""

    uri: str
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The shards of a run. `identity` is all that determines its output besides how it is cut; `bad` are files."""

    identity: Mapping[str, Any]
    ranges: Sequence[InputRange]
    total_bytes: int
    shard_bytes: int
    is_scattered: bool
    bad: Sequence[BadInput]

    @property
    def partitions(self) -> int:
        """How many partitions the rows of all ranges go to, if they are scattered."""
        return max(-(-self.total_bytes // self.shard_bytes), 1)

    def to_json(self) -> bytes:
        return orjson.dumps(self, option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, text: bytes) -> "Plan":
        """The plan that was stored. Raises ValueError for what is none."""
        stored = orjson.loads(text)
        ranges = [InputRange(**{**one, "kind": InputKind(one["kind"])}) for one in stored["ranges"]]
        return cls(**{**stored, "ranges": ranges, "bad": [BadInput(**one) for one in stored["bad"]]})

    def scattered(self) -> "Plan":
        return replace(self, is_scattered=True)


def found_inputs(inputs: Sequence[str]) -> list[InputFile]:
    """The files, those of folders by name. Raises InputError, and ConfigurationError for names that say nothing."""
    found = [file for given in inputs for file in _files_of(checked_input(given))]
    if not found:
        raise InputError(f"there is no file of candidates in {', '.join(map(repr, inputs)) or 'no input'}")
    return found


def _files_of(given: Place) -> Iterator[InputFile]:
    info = given.info()
    if info.is_file:
        kind_of(given.name)
        yield InputFile(given.uri, info.size, info.mtime_ns or 0)
    else:
        for name in given.files():
            if is_known(name):
                inside = (given / name).info()
                yield InputFile((given / name).uri, inside.size, inside.mtime_ns or 0)


def identity_of(
    files: Sequence[InputFile], rules: PairingRules, selection: SelectionRules, options: ScaleOptions
) -> dict[str, Any]:
    """All that determines the output but for where shards begin."""
    unsaid = ("max_bad_share", "memory", "shard_bytes", "workers", "engine", "address", "retries", "overwrite", "about")
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


def planned(files: Sequence[InputFile], identity: Mapping[str, Any], options: ScaleOptions, workers: int) -> Plan:
    """The ranges of all files. Raises InputError for Parquet without the columns of candidates."""
    small = max(sum(file.size for file in files) // _SHARDS_OF_LITTLE, _LEAST_OF_LITTLE)
    at_once = max(min(options.shard_bytes, options.memory // (workers * _COPIES), small), 1)
    ranges: list[InputRange] = []
    bad: list[BadInput] = []
    total = 0
    for file in files:
        kind = kind_of(file.uri)
        try:
            size, cuts = _cuts(file, kind, at_once)
        except UNREADABLE as error:
            bad.append(BadInput(file.uri, None, None, f"cannot be read: {first_line(error)}"))
            continue
        total += size
        ranges += [InputRange(file.uri, kind, start, stop, cuts[-1]) for start, stop in pairwise(cuts)]
    is_scattered = options.scattered or _meet_in_several(ranges)
    return Plan(identity, ranges, total, at_once, is_scattered, bad)


def _cuts(file: InputFile, kind: InputKind, at_once: int) -> tuple[int, list[int]]:
    """Decompressed bytes of the file, and where its ranges begin and end."""
    if kind is InputKind.PARQUET:
        return _group_cuts(InputRange(file.uri, kind, 0, 0, 0), at_once)
    if kind.is_compressed:
        # Text is some four times as large as what it is compressed to.
        return file.size * 4, [0, sys.maxsize]
    count = max(-(-file.size // at_once), 1)
    return file.size, [file.size * number // count for number in range(count + 1)] if file.size else [0]


def _group_cuts(whole: InputRange, at_once: int) -> tuple[int, list[int]]:
    cuts, held, total = [0], 0, 0
    with row_groups.opened(whole) as file:
        row_groups.check_columns(file, whole.uri)
        count = file.metadata.num_row_groups
        for number in range(count):
            size = file.metadata.row_group(number).total_byte_size
            total += size
            held += size
            if held >= at_once or number == count - 1:
                cuts.append(number + 1)
                held = 0
    return total, cuts


def _meet_in_several(ranges: Sequence[InputRange]) -> bool:
    """Whether the first turn of some file goes on in another: a quick look, as shards look at all of their turns."""
    firsts = [one for one in ranges if one.start == 0][:_MOST_LOOKED_AT]
    seen: set[object] = set()
    for one in firsts if len(firsts) > 1 else ():
        block = next(iter(read_columns(one, Troubles(), with_raw=False, block_bytes=_BYTES_LOOKED_AT)), None)
        if block is None:
            continue
        keys = {block.key(row) for row in range(len(block.with_turn())) if block.line[row] < 0}
        if not keys.isdisjoint(seen):
            return True
        seen |= keys
    return False
