"""A finished run as a report reads it: the facts in its manifests, and its turns one after the other."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nat_dpo_pipeline.core.candidates import Turn, finite_number, group_turns
from nat_dpo_pipeline.core.json_values import items, mapping
from nat_dpo_pipeline.dataset.manifest import GENERATOR, MANIFEST_NAME, ManifestKind
from nat_dpo_pipeline.dataset.run_files import CANDIDATES, DATASET, SET_ASIDE
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.rows import RowKeys, read_object, read_row
from nat_dpo_pipeline.generation.turns import Flaw
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.report.paired import clean

_Json = Mapping[str, object]
# What the trainer leaves out of the pairs, after all that is decided by the trajectory builder.
_BY_THE_TRAINER = ("duplicate_pairs", "over_max_pairs")
# A flaw goes by the name that failures have in the manifest.
_FAILURES: Mapping[str, str] = {flaw: flaw.failure for flaw in Flaw}
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Spending:
    """What one model was asked in one step. A cost is None where it is not known."""

    step: str
    llm: str
    model: str
    requests: int
    retries: int
    replayed: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    uncounted: int = 0

    @property
    def has_tokens(self) -> bool:
        """True when the server counted tokens, as far as the manifest says."""
        return not self.uncounted or self.prompt_tokens + self.completion_tokens > 0


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the manifests of a run say.

    The sides of the split are None where no dataset was written; `unwritten` counts pairs that are not in it.
    """

    name: str
    status: str = "unknown"
    message: str | None = None
    started: str | None = None
    ended: str | None = None
    failed: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    spending: tuple[Spending, ...] = ()
    cost: float | None = None
    train_pairs: int | None = None
    validation_pairs: int | None = None
    unwritten: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetAside:
    """What did not come as far as pairing: turns and responses, by reason, and rows that nobody can read.

    `flaws` are those of these responses, which may be here for another reason.
    """

    turns: Counter[str] = field(default_factory=Counter)
    responses: Counter[str] = field(default_factory=Counter)
    scored: int = 0
    unreadable: int = 0
    flaws: Counter[str] = field(default_factory=Counter)


def read_facts(folder: Path) -> RunFacts:
    """The facts of the run in `folder`. Raises InputError when there is none."""
    if not (folder / CANDIDATES).is_file():
        raise InputError(
            f"{str(folder)!r} has no {CANDIDATES}: give a folder that `nat dpo generate` or `nat dpo pairs` wrote"
        )
    manifest, dataset = read_manifest(folder), read_manifest(folder / DATASET)
    if manifest.get("kind") == ManifestKind.DATASET:
        # Of recorded candidates: the dataset is in the folder itself, and its manifest is written when it is whole.
        manifest, dataset = {"status": "complete"}, manifest
    sides = mapping(dataset.get("counts"))
    skipped = _counts(mapping(dataset.get("skipped")).get("pairs"))
    return RunFacts(
        name=clean(folder.resolve().name),
        status=_text(manifest.get("status")) or "unfinished",
        message=_text(manifest.get("message")),
        started=_text(manifest.get("started")),
        ended=_text(manifest.get("ended")),
        failed={clean(step): _counts(reasons) for step, reasons in mapping(manifest.get("skipped")).items()},
        spending=tuple(_spending(row) for row in items(manifest.get("spending"))),
        cost=finite_number(manifest.get("cost")),
        train_pairs=_count(sides["train_pairs"]) if "train_pairs" in sides else None,
        validation_pairs=_count(sides["validation_pairs"]) if "validation_pairs" in sides else None,
        unwritten={name: skipped[name] for name in _BY_THE_TRAINER if skipped.get(name)},
    )


def read_manifest(folder: Path) -> _Json:
    """The manifest of ours in `folder`, or nothing: a run that was killed has none."""
    try:
        manifest = parse_json((folder / MANIFEST_NAME).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, InputError) as error:
        raise InputError(f"{str(folder / MANIFEST_NAME)!r} cannot be read: {error}") from error
    return manifest if isinstance(manifest, dict) and manifest.get("generator") == GENERATOR else {}


def read_turns(folder: Path) -> Iterator[Turn]:
    """The turns that can be paired, in order; lines that are no rows are passed over. Raises InputError."""
    for line in _lines(folder / CANDIDATES):
        yield from turns_of(line)


def turns_of(line: str) -> list[Turn]:
    """The turns in one line of candidates.jsonl: one, or none where it cannot be read."""
    try:
        candidates = read_row(line, RowKeys(), GenerationRecord())
    except InputError:
        return []
    return group_turns(
        replace(
            one,
            example_id=str(one.metadata.get("example_id", "")),
            turn_id=str(one.metadata.get("turn_id", one.turn_id)),
        )
        for one in candidates
    ).turns


def read_set_aside(folder: Path) -> SetAside:
    """What was set aside before pairing, counted. Raises InputError."""
    turns: Counter[str] = Counter()
    responses: Counter[str] = Counter()
    flaws: Counter[str] = Counter()
    scored = unreadable = 0
    for line in _lines(folder / SET_ASIDE):
        if (row := _row(line)) is None:
            unreadable += 1
            continue
        turns[_text(row.get("set_aside")) or "no_scored_response"] += 1
        scored += len(items(row.get("candidates")))
        unscored = _responses(row, "unscored")
        responses.update(map(_reason, unscored))
        flaws += _flaws([*unscored, *_responses(row, "candidates")])
    for line in _lines(folder / CANDIDATES):
        row = _row(line) or {}
        usable = [one.metadata for turn in turns_of(line) for one in turn.candidates]
        # A candidate that is no text, such as half of a surrogate pair, has a score but no place in a dataset.
        scored += len(items(row.get("candidates"))) - len(usable)
        unscored = _responses(row, "unscored")
        responses.update(map(_reason, unscored))
        flaws += _flaws([*unscored, *_responses(row, "candidates")]) - _flaws(usable)
        unreadable += not usable
    return SetAside(turns, responses, scored, unreadable, flaws)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if line.strip())
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error


def _row(line: str) -> _Json | None:
    try:
        return read_object(line)
    except InputError:
        return None


def _responses(row: _Json, name: str) -> list[_Json]:
    """What is known of each response that a row has under a name; nothing of one that is no object."""
    return [mapping(one) for one in items(row.get(name))]


def _reason(response: _Json) -> str:
    """Why a response has no score, in one word. Runs of earlier versions have messages of errors there."""
    reason = _text(response.get("reason")) or _text(response.get("flaw")) or _UNKNOWN
    return _FAILURES.get(reason, reason if len(reason.split()) == 1 else _UNKNOWN)


def _flaws(responses: Iterable[_Json]) -> Counter[str]:
    return Counter(flaw for one in responses if (flaw := _text(one.get("flaw"))))


def _spending(row: object) -> Spending:
    facts = mapping(row)
    found: dict[str, Any] = {name: _text(facts.get(name)) or "" for name in ("step", "llm", "model")}
    found |= {one.name: _count(facts.get(one.name)) for one in fields(Spending) if one.type is int}
    return Spending(**found, cost=finite_number(facts.get("cost")))


def _text(value: object) -> str | None:
    return clean(value) if isinstance(value, str) and value else None


def _count(value: object) -> int:
    # More is damage; what reads the report holds no more exactly.
    return value if isinstance(value, int) and abs(value) < 2**53 else 0


def _counts(reasons: object) -> dict[str, int]:
    return {clean(str(reason)): _count(count) for reason, count in mapping(reasons).items()}
