"""`nat dpo status`: where a training job stands."""

import asyncio
from pathlib import Path

import click

from nat_dpo_pipeline.cli.terminal import say_all


@click.command(name="status")
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration of the run, where its credentials are not in the environment.",
)
def status_command(run_dir: Path, config_file: Path | None) -> None:
    """Ask once for the job that `nat finetune` submitted last.

    RUN_DIR is the run's finetuning.output_dir. Exit code 1 when the job failed or was cancelled.
    """
    from nat_dpo_pipeline.cli.training import adapter_of, has_failed, job_lines
    from nat_dpo_pipeline.plugin.finetuning.saved_job import read_saved_job

    saved = read_saved_job(run_dir)
    status = asyncio.run(adapter_of(saved, config_file).status(saved.ref))
    say_all(job_lines(status))
    raise SystemExit(int(has_failed(status)))
