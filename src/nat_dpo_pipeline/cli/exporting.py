"""What `nat dpo export` does with its options."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from nat_dpo_pipeline.cli.saying import say
from nat_dpo_pipeline.cli.telling import columns, dataset_files, training_of
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME
from nat_dpo_pipeline.dataset.run_folder import CANDIDATES, read_turns
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings, recorded_builder
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.datasets import PairedDataset, write_pairs
from nat_dpo_pipeline.pairing.strict import checked
from nat_dpo_pipeline.report.summary import listed


def run_export(
    run_dir: Path,
    formats: tuple[str, ...],
    output_dir: Path,
    *,
    parquet: bool = False,
    stratify: bool = False,
    single_label_score: float | None = None,
    license_name: str = "unknown",
    title: str = "Preference pairs",
    model: str | None = None,
) -> int:
    """The exit code: 1 when there is no pair. Raises DPOPipelineError for what a user can mend."""
    configuration = _configuration(run_dir)
    builder = recorded_builder(_fields(BuilderSettings, configuration.get("trajectory_builder")))
    trainer = checked(SplitSettings, _fields(SplitSettings, configuration.get("trainer")))
    adapter = checked(
        DatasetSettings,
        {
            "formats": list(formats),
            "parquet": parquet,
            "stratify": stratify,
            "single_label_score": single_label_score,
            "license": license_name,
            "title": title,
            "training": {} if model is None else {"model": model},
        },
    )
    paired = write_pairs(output_dir, lambda: read_turns(run_dir), builder, trainer, configuration, adapter)
    _tell(paired)
    return 0 if any(paired.written.pairs.values()) else 1


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


def _fields(kind: type[BaseModel], found: object) -> dict[str, object]:
    known = found if isinstance(found, Mapping) else {}
    return {name: value for name, value in known.items() if name in kind.model_fields}


def _tell(paired: PairedDataset) -> None:
    written = paired.written
    for side, count in written.pairs.items():
        say(f"  {count:,} pairs in {side}")
    if paired.skipped:
        say(f"  pairs left out: {listed(paired.skipped)}")
    for stage, reasons in written.refused.items():
        say(f"  left out of {stage}: {listed(reasons)}")
    for line in (*columns(dataset_files(written), left=2), *training_of(written)):
        say(line)
