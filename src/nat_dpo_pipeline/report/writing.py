"""A report on disk: report.json and report.html, one file with everything in it; each whole or not there."""

from collections.abc import Iterator
from pathlib import Path

from nat_dpo_pipeline.dataset.files import check_writable, json_text, replace_file, replaced
from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.report.dangers import Danger, dangers_in
from nat_dpo_pipeline.report.document import json_for_html, page, percent
from nat_dpo_pipeline.report.measuring import measure
from nat_dpo_pipeline.report.numbers import Numbers, Versus
from nat_dpo_pipeline.report.pair_data import PairIndex, chunks, every_how_many
from nat_dpo_pipeline.report.paired import PairedTurns
from nat_dpo_pipeline.report.run import RunFacts, read_set_aside

REPORT = "report.html"
_SHADES = 6


def examine(run_dir: Path, facts: RunFacts, turns: PairedTurns) -> tuple[Numbers, list[Danger]]:
    """The numbers of the run in `run_dir` and what they warn of. Raises InputError when it cannot be read."""
    numbers = measure(turns(), facts, read_set_aside(run_dir))
    return numbers, dangers_in(numbers)


def write_report(path: Path, numbers: Numbers, dangers: list[Danger], turns: PairedTurns) -> None:
    """Write the page to `path`, and the same numbers beside it with the suffix .json. Raises OutputError."""
    check_writable(path.parent)
    try:
        replace_file(path.with_suffix(".json"), json_text(report_json(numbers, dangers)))
        with replaced(path) as sink:
            for piece in _page(numbers, dangers, turns):
                sink.write(piece.encode())
    except OSError as error:
        raise OutputError(f"cannot write the report to {str(path)!r}: {error}") from error


def report_json(numbers: Numbers, dangers: list[Danger]) -> dict[str, object]:
    """The content of report.json."""
    return {"warnings": [danger.to_json() for danger in dangers], **numbers.to_json()}


def _page(numbers: Numbers, dangers: list[Danger], turns: PairedTurns) -> Iterator[str]:
    """Yield the page in pieces, turn by turn."""
    index, step = PairIndex(), every_how_many(numbers)
    return page(
        "page.html.j2",
        "page.js",
        n=numbers,
        dangers=dangers,
        step=step,
        versus=_table_of_models(numbers),
        chunks=chunks(turns(), step, index),
        index=lambda: json_for_html(index.to_json()),
        charts=json_for_html(numbers.to_json()),
    )


def _table_of_models(numbers: Numbers) -> list[tuple[str, list[tuple[str, int | None, str]]]]:
    """A row for each model: against each of the others its share of wins, the shade of it, and the counts in words."""
    found = {(one.model, one.other): one for one in numbers.versus}
    names = [one.name for one in numbers.models]
    return [(name, [_cell(name, other, found) for other in names]) for name in names]


def _cell(name: str, other: str, found: dict[tuple[str, str], Versus]) -> tuple[str, int | None, str]:
    one = found.get((name, other))
    if one is None:
        return "", None, ""
    rate = (one.wins + one.ties / 2) / (one.wins + one.ties + one.losses)
    return percent(rate), round(rate * _SHADES), f"{one.wins:,} won, {one.ties:,} tied, {one.losses:,} lost"
