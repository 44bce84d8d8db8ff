"""`nat dpo export`: the dataset of a generation run once more, in other formats."""

from pathlib import Path

import click


@click.command(name="export")
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-f", "--format", "formats", multiple=True, required=True, help="A format's name; can be repeated.")
@click.option(
    "-o", "--output", "output_dir", required=True, type=click.Path(file_okay=False, path_type=Path), help="Its folder."
)
@click.option("--parquet", is_flag=True, help="Parquet too, where the readers of a format take it.")
@click.option("--stratify", is_flag=True, help="Draw the held-out prompts from each subtopic by its share.")
@click.option(
    "--single-label-score", type=float, help="Answers alone in their turn go to kto, good from this score on."
)
@click.option("--model", help="The model that the training configurations beside the data train.")
@click.option("--license", "license_name", default="unknown", help="For the dataset card.")
@click.option("--title", default="Preference pairs", help="For the dataset card.")
def export_command(**options: object) -> None:
    """Pair the candidates of a run folder as its manifest says, and write them in any of the formats.

    trl, trl_standard, nemo_customizer, helix, helpsteer3, tulu3, nemo_rl, openai, llama_factory, axolotl, hh, kto,
    steerlm, ultrafeedback.
    """
    from nat_dpo_pipeline.cli.exporting import run_export

    raise SystemExit(run_export(**options))  # type: ignore[arg-type]  # click fills them by name
