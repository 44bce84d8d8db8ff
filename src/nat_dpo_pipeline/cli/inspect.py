"""`nat dpo inspect`: the contents of a dataset, and the problems that a trainer would have with it."""

from collections.abc import Iterator
from pathlib import Path

import click

from nat_dpo_pipeline.cli.summaries import number
from nat_dpo_pipeline.cli.terminal import say_all
from nat_dpo_pipeline.dataset.inspecting import FileReport, Looking, Problem, inspect
from nat_dpo_pipeline.dataset.rendered import ChatTemplate
from nat_dpo_pipeline.errors import InputError


@click.command(name="inspect")
@click.argument("paths", metavar="FILE…", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--max-chars", type=click.IntRange(min=1), help="Longest prompt and answer together.")
@click.option("--template", help="A model, or a folder with a tokenizer: rows as its chat template renders them.")
def inspect_command(paths: tuple[Path, ...], max_chars: int | None, template: str | None) -> None:
    """Look at datasets in any format this package writes, and at folders of them, also those of others.

    Of a folder all .jsonl and .parquet files of one format are sides of one split; a JSON array (.json) is named
    itself. Exit code 1 when a trainer would stop, drop rows or learn nothing from them.
    """
    reports = inspect(paths, Looking(max_chars, ChatTemplate(template) if template else None))
    unfit = [report for report in reports if not report.is_fit]
    say_all(line for report in reports for line in _lines(report))
    say_all([f"{len(unfit)} of {len(reports)} files would make a trainer stumble" if unfit else "no problems found"])
    raise SystemExit(bool(unfit))


def _lines(report: FileReport) -> Iterator[str]:
    rows, prompts = f"{number(report.rows)} rows", f"{number(len(report.prompts))} prompts"
    yield f"{report.path}: {report.format or 'no known format'}, {rows}, {prompts}"
    for problem, count in report.problems.most_common():
        mark = "✗" if problem.is_fatal else "·"
        named = f"{number(count)} {problem.replace('_', ' ')}"
        yield f"  {mark} {named}: {_meaning(problem, report)}{_where(problem, report)}"


def _where(problem: Problem, report: FileReport) -> str:
    lines = report.lines.get(problem, [])
    if not lines:
        return ""
    more = f" and {number(count)} more" if (count := report.problems[problem] - len(lines)) > 0 else ""
    return f" ({report.unit} {', '.join(map(str, lines))}{more})"


def _meaning(problem: Problem, report: FileReport) -> str:
    if problem is not Problem.UNKNOWN_FORMAT or report.format is not None:
        return problem.meaning
    from nat_dpo_pipeline.records.formats import named_keys

    found = f"the first of them has {named_keys(report.first_row)}"
    if name := _recorded(report.path):
        return f"{found}: {name}, of which `nat dpo pairs` makes a dataset"
    return f"{found}; a pair has 'prompt', 'chosen' and 'rejected', and docs/datasets.md has every format"


def _recorded(path: Path) -> str | None:
    """Return the name of the format of recorded candidates that a file is in, if it is in one."""
    from nat_dpo_pipeline.records.formats import recognised
    from nat_dpo_pipeline.records.places import Place

    try:
        found = recognised(Place(str(path)))
    except InputError:
        return None
    return None if found is None else found.name
