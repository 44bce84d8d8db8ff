"""`nat dpo resume`: go on with a training job, or with waiting for it."""

from pathlib import Path

import click


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
    from nat_dpo_pipeline.cli.training import run_resume

    raise SystemExit(run_resume(run_dir, config_file))
