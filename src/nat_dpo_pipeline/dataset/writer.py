"""The dataset on disk: `<folder>/trl/train.jsonl`, `validation.jsonl` and `<folder>/manifest.json`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nat_dpo_pipeline.dataset.files import (
    WrittenFile,
    check_writable,
    lock_of,
    replace_file,
    replaced_folder,
    write_jsonl,
)
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName, trl_row
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME, Manifest, is_ours
from nat_dpo_pipeline.errors import OutputError

_FORMAT = "trl"
# Says whose folder it is while there is no manifest yet: a run may be killed between the two.
_MARK = ".nat-dpo-pipeline"


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """Where a dataset went."""

    folder: Path
    files: tuple[WrittenFile, ...]
    manifest: Path


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the manifest says besides the files; JSON values without secrets."""

    seed: int
    configuration: Mapping[str, object]
    skipped: Mapping[str, object]
    report: Mapping[str, object] | None = None


def check_target(folder: Path) -> None:
    """Raise OutputError when `folder` cannot be written to, or holds a `trl` folder that is not ours to replace."""
    check_writable(folder)
    data = folder / _FORMAT
    ours = is_ours(folder) or (data / _MARK).exists()
    foreign = [path for path in (data, folder / MANIFEST_NAME) if path.exists() and not ours]
    if foreign:
        raise OutputError(
            f"{str(foreign[0])!r} exists and was not written by this package (no {MANIFEST_NAME} of ours "
            "there): choose another output_dir or move it away"
        )


def write_dataset(
    folder: Path, splits: Mapping[SplitName, Iterable[PreferenceRow]], provenance: Provenance
) -> WrittenDataset:
    """Write every split, then the manifest. A dataset of ours that is there is replaced once the new one is whole.

    Rows are written as they come. Raises OutputError; an empty split still gets its (empty) file.
    """
    check_target(folder)
    manifest = folder / MANIFEST_NAME
    try:
        with lock_of(folder):
            with replaced_folder(folder / _FORMAT) as stage:
                (stage / _MARK).touch()
                files = tuple(_write_split(stage, name, splits.get(name, ())) for name in SplitName)
                text = _manifest(files, provenance).to_json()
                # From here to the end there is no manifest, as it would speak of other files than those beside it.
                manifest.unlink(missing_ok=True)
            replace_file(manifest, text)
    except (OSError, TypeError) as error:
        raise OutputError(f"cannot write the dataset to {str(folder)!r}: {error}") from error
    return WrittenDataset(folder, files, manifest)


def _write_split(stage: Path, name: SplitName, rows: Iterable[PreferenceRow]) -> WrittenFile:
    written = write_jsonl(stage / f"{name}.jsonl", map(trl_row, rows))
    return WrittenFile(f"{_FORMAT}/{written.path}", written.rows, written.size, written.sha256)


def _manifest(files: Sequence[WrittenFile], provenance: Provenance) -> Manifest:
    counts = {f"{name}_pairs": file.rows for name, file in zip(SplitName, files, strict=True)}
    return Manifest(
        seed=provenance.seed,
        configuration=provenance.configuration,
        counts=counts,
        skipped=provenance.skipped,
        files=files,
        report=provenance.report,
    )
