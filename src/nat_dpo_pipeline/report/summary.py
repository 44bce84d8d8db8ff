"""What a run collected, as numbers, and the few lines that say it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields

from nat_dpo_pipeline.core.printable import listed
from nat_dpo_pipeline.records.ranges import FileCounts

Reasons = Counter[str]


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """One collection run, or several added up. Counters of what was left out go by reason.

    `generated` counts what the workflow says it made (topics, questions, …), `failed` what it could not make, by step
    and reason; both are empty for workflows that do not report it. `files` are those that were read instead of running
    an evaluation.
    """

    examples: int = 0
    examples_without_candidates: int = 0
    interrupted_runs: int = 0
    generated: Counter[str] = field(default_factory=Counter)
    failed: Mapping[str, Reasons] = field(default_factory=dict)
    candidates: int = 0
    refused: Reasons = field(default_factory=Counter)
    turns: int = 0
    turns_split: int = 0
    turns_with_one_candidate: int = 0
    pairs: int = 0
    skipped: Reasons = field(default_factory=Counter)
    problems: tuple[str, ...] = ()
    files: tuple[FileCounts, ...] = ()

    def __add__(self, other: "CollectionReport") -> "CollectionReport":
        added = {
            one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self) if one.name != "failed"
        }
        added["problems"] = tuple(dict.fromkeys(added["problems"]))
        return CollectionReport(failed=_added(self.failed, other.failed), **added)

    def to_json(self) -> dict[str, object]:
        """The counts; `skips` holds the rest."""
        counts = {one.name: getattr(self, one.name) for one in fields(self)}
        for name in ("failed", "refused", "skipped"):
            del counts[name]
        files = [file.to_json() for file in counts.pop("files")]
        return {**counts, "problems": list(self.problems), **({"files": files} if files else {})}

    def skips(self) -> dict[str, dict[str, int]]:
        """Everything that was left out, by the stage that left it out and the reason."""
        stages = {**self.failed, "candidates": self.refused, "pairs": self.skipped}
        return {stage: dict(reasons) for stage, reasons in stages.items() if reasons}


def describe(report: CollectionReport) -> list[str]:
    """The report as lines for a terminal."""
    return [f"{name:<22}{value}" for name, value in _rows(report)]


def _rows(report: CollectionReport) -> Iterator[tuple[str, object]]:
    for file in report.files:
        yield "read", file
    for name, count in report.generated.items():
        if count and name != "candidates":
            yield name.replace("_", " "), count
    yield "candidates", report.candidates
    yield "turns", report.turns
    yield "pairs", report.pairs
    for stage, reasons in report.skips().items():
        yield f"skipped {stage}", listed(reasons)
    if report.turns_with_one_candidate:
        yield "skipped turns", f"{report.turns_with_one_candidate} with one candidate"
    if report.turns_split:
        yield "split turns", f"{report.turns_split} whose candidates had different prompts"
    if report.examples_without_candidates:
        yield "no candidates from", f"{report.examples_without_candidates} of {report.examples} examples"
    for problem in report.problems:
        yield "problem", problem


def total(reports: Iterable[CollectionReport]) -> CollectionReport:
    """Several reports as one."""
    return sum(reports, CollectionReport())


def _added(one: Mapping[str, Reasons], other: Mapping[str, Reasons]) -> dict[str, Reasons]:
    empty: Reasons = Counter()
    return {stage: one.get(stage, empty) + other.get(stage, empty) for stage in dict.fromkeys((*one, *other))}
