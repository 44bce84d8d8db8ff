"""`nat dpo pairs`: recorded candidates to a dataset of pairs."""

from pathlib import Path

import click


@click.command(name="pairs")
@click.argument("files", metavar="FILE…", nargs=-1)
@click.option(
    "-o", "--output", "output_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Its folder."
)
@click.option(
    "--rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML: fields of dpo_traj_builder, or a whole configuration with one.",
)
@click.option("--strategy", help="Which candidates of a turn meet.")
@click.option("--min-score-diff", type=float, help="Pairs whose scores differ by less are left out.")
@click.option("--step-name", help="The name of the steps that hold candidates.")
@click.option("-f", "--format", "formats", multiple=True, help="A format's name; can be repeated.  [default: trl]")
@click.option("--validation-fraction", type=float, help="About this share of the prompts is held out.  [default: 0.1]")
@click.option("--seed", type=int, help="Of the split, and of what is drawn.  [default: 0]")
@click.option(
    "--engine",
    type=click.Choice(["auto", "memory", "local", "ray"]),
    default="auto",
    show_default=True,
    help="`local` and `ray` pair in shards, by processes here or on a cluster; auto: from 256 MiB on, and Parquet.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes that have the shards.  [default: one a core]")
@click.option("--address", help="Of a Ray cluster that runs already; without it one is started on this machine.")
@click.option("--memory", default="4G", show_default=True, help="What all processes with shards may take together.")
@click.option(
    "--max-bad-share",
    type=click.FloatRange(0, 1),
    help="Shards: the share of rows, and of files, that may be unreadable.  [default: 0.001]",
)
@click.option("--overwrite", is_flag=True, help="Replace shards in the folder that were made of something else.")
def pairs_command(**options: object) -> None:
    """Pair recorded candidates and write them in any of the formats that `nat dpo export` has.

    Recognised by content: turn rows and flat rows of candidates, rollouts with a reward (also of NeMo Gym), ATIF
    trajectories with a table of scores, NAT's workflow_output.json, its file exporter and saved /generate/full
    streams, and ATOF events; .gz and .zst too. Rows of candidates are also read from Parquet, folders and URIs, in
    shards (docs/scale.md). Exit code 1 when there is no pair.
    """
    from nat_dpo_pipeline.cli.pairing import PairsOptions, run_pairs

    raise SystemExit(run_pairs(PairsOptions(**options)))  # type: ignore[arg-type]  # click fills them by name
