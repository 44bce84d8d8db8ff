"""`nat dpo resume`: go on with a training job, or with waiting for it."""

import asyncio
from pathlib import Path

import click

from nat_dpo_pipeline.cli.terminal import say, say_all

_INTERRUPTED = 130


@click.command(name="resume")
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration of the run, where its credentials are not in the environment.",
)
def resume_command(run_dir: Path, config_file: Path | None) -> None:
    """Wait for the job that `nat finetune` submitted last; one that was stopped goes on where its back end can do that.

    A local training goes on from its newest whole checkpoint. RUN_DIR is the run's finetuning.output_dir. Exit code 1
    unless the job succeeds.
    """
    from nat_dpo_pipeline.cli.training import adapter_of, has_failed, job_lines
    from nat_dpo_pipeline.plugin.finetuning.saved_job import read_saved_job
    from nat_dpo_pipeline.plugin.finetuning.trainer import update_metrics
    from nat_dpo_pipeline.plugin.interrupts import Interrupted

    saved = read_saved_job(run_dir)
    try:
        status = asyncio.run(adapter_of(saved, config_file).resume(saved.ref))
    except Interrupted as error:
        say(f"{error}; the same command goes on.", err=True)
        raise SystemExit(_INTERRUPTED) from None
    update_metrics(run_dir, status)
    say_all(job_lines(status))
    raise SystemExit(int(has_failed(status)))
