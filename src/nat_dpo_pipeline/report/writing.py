"""A report on disk: report.json and report.html, each whole or not there."""

from pathlib import Path

from nat_dpo_pipeline.dataset.files import check_writable, json_text, replace_file, replaced
from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.report.dangers import Danger, dangers_in
from nat_dpo_pipeline.report.measuring import measure
from nat_dpo_pipeline.report.numbers import Numbers
from nat_dpo_pipeline.report.page import page
from nat_dpo_pipeline.report.paired import PairedTurns
from nat_dpo_pipeline.report.run import RunFacts, read_set_aside

REPORT = "report.html"


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
            for piece in page(numbers, dangers, turns):
                sink.write(piece.encode())
    except OSError as error:
        raise OutputError(f"cannot write the report to {str(path)!r}: {error}") from error


def report_json(numbers: Numbers, dangers: list[Danger]) -> dict[str, object]:
    """The content of report.json."""
    return {"warnings": [danger.to_json() for danger in dangers], **numbers.to_json()}
