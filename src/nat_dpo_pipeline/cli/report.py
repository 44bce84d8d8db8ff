"""`nat dpo report`: what a run came to, as a page to look at."""

from pathlib import Path

import click


@click.command(name="report")
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--text", is_flag=True, help="The numbers on the terminal; nothing is written.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the page goes; report.json goes beside it.  [default: RUN_DIR/report.html]",
)
def report_command(run_dir: Path, text: bool, output: Path | None) -> None:
    """Make a page of a run that opens from disk: flow, scores, lengths, models, warnings, and every pair.

    RUN_DIR is the folder that `nat dpo generate` wrote; what each warning means is in docs/report.md. Of the folder of
    a local training the page has its learning curves and what was measured.
    """
    from nat_dpo_pipeline.cli.reporting import run_report

    run_report(run_dir, output, text=text)
