"""The dataset on disk: a folder a format (`<folder>/trl/train.jsonl`, …), a card and `<folder>/manifest.json`."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from nat_dpo_pipeline.dataset.card import CARD_NAME, About, CardFacts, WrittenFormat, card_text, is_our_card
from nat_dpo_pipeline.dataset.files import (
    WrittenFile,
    check_writable,
    lock_of,
    replace_file,
    replaced_folder,
    write_json,
)
from nat_dpo_pipeline.dataset.formats import DatasetRow, Format, SplitName, format_names, formats_named
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME, Manifest, ManifestKind, is_ours
from nat_dpo_pipeline.dataset.parquet import check_parquet, write_parquet
from nat_dpo_pipeline.dataset.streams import FormatFiles, Tally, write_rows
from nat_dpo_pipeline.dataset.training.settings import TrainingSettings
from nat_dpo_pipeline.dataset.training.tools import TrainingFile, training_file
from nat_dpo_pipeline.errors import OutputError

# Says whose folder it is while there is no manifest yet: a run may be killed between the two.
MARK = ".nat-dpo-pipeline"


@dataclass(frozen=True, slots=True)
class Target:
    """What is written: the names of formats, how to train on them, and what the card says that only the user knows."""

    formats: tuple[str, ...] = ("trl",)
    parquet: bool = False
    about: About = field(default_factory=About)
    training: TrainingSettings = field(default_factory=TrainingSettings)


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """Where a dataset went. `files` are those of the first format, `others` all else but the manifest."""

    folder: Path
    files: tuple[WrittenFile, ...]
    manifest: Path
    others: tuple[WrittenFile, ...] = ()
    pairs: Mapping[SplitName, int] = field(default_factory=dict)
    refused: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    training: tuple[TrainingFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the manifest says besides the files; JSON values without secrets."""

    seed: int
    configuration: Mapping[str, object]
    skipped: Mapping[str, object]
    report: Mapping[str, object] | None = None


_TRL = Target()


def check_target(folder: Path, target: Target = _TRL) -> None:
    """Raise OutputError when `folder` cannot be written to or holds what is not ours to replace.

    Raises ConfigurationError for a format that there is not, and for Parquet without pyarrow.
    """
    formats = formats_named(target.formats)
    if target.parquet:
        check_parquet()
    check_writable(folder)
    foreign = [path for path in _replaced(folder, formats) if path.exists() and not _is_replaceable(folder, path)]
    if foreign:
        raise OutputError(
            f"{str(foreign[0])!r} exists and was not written by this package for a dataset: choose another output_dir "
            "or move it away"
        )


def _replaced(folder: Path, formats: Iterable[Format]) -> list[Path]:
    return [*(folder / one.name for one in formats), folder / MANIFEST_NAME, folder / CARD_NAME]


def _is_replaceable(folder: Path, path: Path) -> bool:
    if path.name == CARD_NAME:
        return is_our_card(path)
    if path.name == MANIFEST_NAME:
        return is_dataset(folder)
    return (path / MARK).exists()


def is_dataset(folder: Path) -> bool:
    """Whether this package wrote a dataset there, or was about to when it was killed."""
    return is_ours(folder, ManifestKind.DATASET) or any((folder / name / MARK).exists() for name in format_names())


@dataclass(frozen=True, slots=True)
class Staged:
    """The rows of a dataset, whole, but not yet where they belong. Paths are file names."""

    formats: Sequence[WrittenFormat]
    tally: Tally
    provenance: Provenance


def write_dataset(
    folder: Path,
    splits: Mapping[SplitName, Iterable[DatasetRow]],
    provenance: Provenance,
    target: Target = _TRL,
) -> WrittenDataset:
    """Write every split in every format, then card and manifest: see `publish`.

    The rows of a split are read once, as they come; those of a turn must follow one another. An empty split still gets
    its (empty) files.
    """

    def fill(stages: Mapping[str, Path]) -> Staged:
        tally = Tally()
        formats = [FormatFiles(one, stages[one.name]) for one in formats_named(target.formats)]
        for side in SplitName:
            write_rows(splits.get(side, ()), formats, tally, side)
        written = [WrittenFormat(one.format, one.lines, has_calls=one.has_calls) for one in formats]
        return Staged(written, tally, provenance)

    return publish(folder, target, fill)


def publish(folder: Path, target: Target, fill: Callable[[Mapping[str, Path]], Staged]) -> WrittenDataset:
    """Have the folders of the formats filled, and put them in their place, then card and manifest.

    A dataset of ours that is there is replaced once the new one is whole, and its formats that are not written anew go.
    Raises OutputError, and what `fill` raises.
    """
    check_target(folder, target)
    manifest = folder / MANIFEST_NAME
    formats = formats_named(target.formats)
    try:
        with lock_of(folder):
            with ExitStack() as stack:
                stages = {one.name: stack.enter_context(replaced_folder(folder / one.name)) for one in formats}
                staged = fill(stages)
                tally, provenance = staged.tally, staged.provenance
                written = [_finished(one, stages[one.format.name], target) for one in staged.formats]
                skipped = {**provenance.skipped, **tally.skipped()}
                facts = CardFacts(
                    target.about, written, tally.pairs, provenance.configuration, skipped, provenance.seed
                )
                card = card_text(facts).encode(errors="replace")
                # From here to the end there is no manifest, as it would speak of other files than those beside it.
                manifest.unlink(missing_ok=True)
            _remove_other_formats(folder, formats)
            cards = (replace_file(folder / CARD_NAME, card),)
            replace_file(manifest, _manifest(written, cards, tally, skipped, provenance).to_json())
    except OSError as error:
        raise OutputError(f"cannot write the dataset to {str(folder)!r}: {error}") from error
    first, *more = written
    others = (*first.parquet.values(), *first.extra, *(file for one in more for file in one.files), *cards)
    return WrittenDataset(
        folder, tuple(first.lines.values()), manifest, others, tally.pairs, tally.skipped(), _training(written)
    )


def _finished(files: WrittenFormat, stage: Path, target: Target) -> WrittenFormat:
    (stage / MARK).touch()
    one = files.format
    lines = {side: _below(one, file, one.files[side]) for side, file in files.lines.items()}
    training = training_file(one.name, target.training, lines)
    parquet = {}
    if target.parquet and one.parquet and one.columns is not None:
        with_calls = files.has_calls and one.takes_calls
        parquet = {
            side: write_parquet(stage / one.files[side], one.columns, with_calls=with_calls) for side in files.lines
        }
    extra = [write_json(stage / name, value) for name, value in one.extra.items()]
    if training is not None:
        extra.append(replace_file(stage / Path(training.path).name, training.text.encode()))
    return replace(
        files,
        lines=lines,
        parquet={side: _below(one, file, _parquet_name(one, side)) for side, file in parquet.items()},
        extra=[_below(one, file, file.path) for file in extra],
        training=training,
    )


def _training(written: Iterable[WrittenFormat]) -> tuple[TrainingFile, ...]:
    return tuple(one.training for one in written if one.training is not None)


def _below(one: Format, file: WrittenFile, name: str) -> WrittenFile:
    return replace(file, path=f"{one.name}/{name}")


def _parquet_name(one: Format, side: SplitName) -> str:
    return str(Path(one.files[side]).with_suffix(".parquet"))


def _remove_other_formats(folder: Path, formats: Sequence[Format]) -> None:
    kept = {one.name for one in formats}
    for name in format_names():
        if name not in kept and (folder / name / MARK).exists():
            shutil.rmtree(folder / name)


def _manifest(
    written: Sequence[WrittenFormat],
    others: Sequence[WrittenFile],
    tally: Tally,
    skipped: Mapping[str, object],
    provenance: Provenance,
) -> Manifest:
    return Manifest(
        seed=provenance.seed,
        configuration=provenance.configuration,
        counts={f"{side}_pairs": count for side, count in tally.pairs.items()},
        skipped=skipped,
        files=[*(file for one in written for file in one.files), *others],
        report=provenance.report,
        training=[
            {"format": file.format, "file": file.path, "needs": file.needs, "commands": file.commands}
            for file in _training(written)
        ],
    )
