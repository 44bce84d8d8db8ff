"""`nat dpo inspect`: what is in a dataset, and what a trainer would choke on."""

from pathlib import Path

import click


@click.command(name="inspect")
@click.argument("paths", metavar="FILE…", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--max-chars", type=click.IntRange(min=1), help="Longest prompt and answer together.")
def inspect_command(paths: tuple[Path, ...], max_chars: int | None) -> None:
    """Look at datasets in any format this package writes, and at folders of them, also those of others.

    Of a folder all .jsonl and .parquet files of one format are sides of one split; a JSON array (.json) is named
    itself. Exit code 1 when a trainer would stop, drop rows or
    learn nothing from them.
    """
    from nat_dpo_pipeline.cli.terminal import say
    from nat_dpo_pipeline.dataset.inspecting import FileReport, inspect

    def told(report: FileReport) -> None:
        rows, prompts = f"{report.rows:,} rows", f"{len(report.prompts):,} prompts"
        say(f"{report.path}: {report.format or 'no known format'}, {rows}, {prompts}")
        for problem, count in report.problems.most_common():
            mark = "✗" if problem.is_fatal else "·"
            lines = ", ".join(map(str, report.lines.get(problem, ())))
            where = f" ({report.unit} {lines}{', …' if count > len(report.lines[problem]) else ''})" if lines else ""
            say(f"  {mark} {count:,} {problem.replace('_', ' ')}: {problem.meaning}{where}")

    reports = inspect(paths, max_chars)
    for report in reports:
        told(report)
    unfit = [report for report in reports if not report.is_fit]
    say(f"{len(unfit)} of {len(reports)} files would make a trainer stumble" if unfit else "nothing to mend")
    raise SystemExit(bool(unfit))
