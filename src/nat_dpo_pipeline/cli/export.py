"""`nat dpo export`: the dataset of a generation run once more, in other formats."""

from collections.abc import Mapping
from pathlib import Path

import click
from pydantic import BaseModel

from nat_dpo_pipeline.cli.options import card_options
from nat_dpo_pipeline.cli.output import nothing_left_on_error
from nat_dpo_pipeline.cli.summaries import dataset_lines
from nat_dpo_pipeline.cli.terminal import say_all
from nat_dpo_pipeline.cli.threads import without_blas_threads
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME
from nat_dpo_pipeline.dataset.run_files import CANDIDATES
from nat_dpo_pipeline.errors import CollectionError, InputError
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.pairing.api import pair_as_set
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings, recorded_builder
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.options import EngineName, PairingOptions
from nat_dpo_pipeline.strict import checked

_OF_THE_CARD = ("license", "title", "languages")


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
@card_options
def export_command(output_dir: Path, **options: object) -> None:
    """Pair the candidates of a run folder as its manifest says, and write them in any of the formats.

    trl, trl_standard, nemo_customizer, helix, helpsteer3, tulu3, nemo_rl, openai, llama_factory, ms_swift,
    openrlhf, axolotl, oumi, hh, kto, steerlm, ultrafeedback.
    """
    with nothing_left_on_error(output_dir):
        _export(output_dir=output_dir, **options)  # type: ignore[arg-type]  # click fills them by name


def _export(
    run_dir: Path,
    formats: tuple[str, ...],
    output_dir: Path,
    *,
    parquet: bool = False,
    stratify: bool = False,
    single_label_score: float | None = None,
    render: str | None = None,
    license_name: str | None = None,
    title: str | None = None,
    languages: tuple[str, ...] = (),
    model: str | None = None,
) -> None:
    """Write the dataset and print its summary. Raises CollectionError when there is no pair."""
    configuration = _configuration(run_dir)
    builder = recorded_builder(_fields(BuilderSettings, configuration.get("trajectory_builder")))
    trainer = checked(SplitSettings, _fields(SplitSettings, configuration.get("trainer")))
    given = {"render": render, "license": license_name, "title": title, "languages": list(languages)}
    adapter = checked(
        DatasetSettings,
        {
            "formats": list(formats),
            "parquet": parquet,
            "stratify": stratify,
            "single_label_score": single_label_score,
            **_card(configuration.get("trainer_adapter")),
            **{name: value for name, value in given.items() if value},
            "training": {} if model is None else {"model": model},
        },
    )
    without_blas_threads()
    result = pair_as_set(
        [str(run_dir / CANDIDATES)],
        str(output_dir),
        (builder, trainer, adapter),
        # Of recorded candidates each prompt's side follows from its text alone.
        PairingOptions(engine=EngineName.MEMORY, exact_split="recorded" not in configuration, max_bad_share=0.0),
        configuration=configuration,
        needs_rows=True,
    )
    say_all(dataset_lines(result))
    if not result.has_rows:
        raise CollectionError("no pair was made of the candidates of the run: the lines above say why")


def _configuration(run_dir: Path) -> Mapping[str, object]:
    """What the run says of itself: how it was paired, if it was, and what made it."""
    if not (run_dir / CANDIDATES).is_file():
        raise InputError(f"{str(run_dir)!r} has no {CANDIDATES}: give a folder that `nat dpo generate` wrote")
    try:
        manifest = parse_json((run_dir / MANIFEST_NAME).read_bytes())
    except (OSError, InputError) as error:
        raise InputError(f"{str(run_dir)!r} has no {MANIFEST_NAME} that can be read: did the run end?") from error
    configuration = manifest.get("configuration") if isinstance(manifest, dict) else None
    return configuration if isinstance(configuration, dict) else {}


def _card(adapter: object) -> dict[str, object]:
    """Return the settings of the card with which the run wrote its own dataset."""
    return {name: value for name, value in _fields(DatasetSettings, adapter).items() if name in _OF_THE_CARD}


def _fields(kind: type[BaseModel], found: object) -> dict[str, object]:
    known = found if isinstance(found, Mapping) else {}
    return {name: value for name, value in known.items() if name in kind.model_fields}
