"""`nat dpo generate`: from topics or questions to scored candidates and pairs, without an evaluation."""

from pathlib import Path

import click


@click.command(name="generate")
@click.option(
    "--config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="A configuration whose workflow is `preference_data`.",
)
@click.option("--topic", "topics", multiple=True, help="A topic, question, or messages as JSON; can be repeated.")
@click.option(
    "--dataset",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of inputs: JSON, JSONL or plain lines. Without it and --topic: the dataset under `eval`.",
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/generate"),
    show_default=True,
    help="Folder of the results. The same command with the same folder goes on where it stopped.",
)
@click.option("-o", "--override", type=(str, str), multiple=True, help="Replace a value: `-o workflow.n_subtopics 3`.")
@click.option("--preview", is_flag=True, help="Two questions through all steps, shown here; nothing is written.")
@click.option("--dry-run", is_flag=True, help="How many calls, and about how many tokens; nothing is sent.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="`ray` shares the inputs among workers of a Ray cluster; the limits are shared too.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Of the engine ray.")
@click.option("--address", help="Of a Ray cluster that runs already; without it one is started on this machine.")
def generate_command(**options: object) -> None:
    """Generate and score responses, and leave candidates, failures, a manifest and the pairs in a folder.

    With a trajectory builder in the configuration the candidates are paired as it says. Ctrl-C stops in order.
    """
    from nat_dpo_pipeline.cli.runs import GenerateOptions, run_generate

    raise SystemExit(run_generate(GenerateOptions(**options)))  # type: ignore[arg-type]  # click fills them by name
