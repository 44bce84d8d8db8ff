"""manifest.json: what a dataset is made of, written last, so that its presence says the dataset is whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from nat_dpo_pipeline.dataset.files import WrittenFile, json_text
from nat_dpo_pipeline.errors import InputError
from nat_dpo_pipeline.json_text import parse_json

MANIFEST_NAME = "manifest.json"
GENERATOR = "nat-dpo-pipeline"
_VERSIONED = (GENERATOR, "nvidia-nat", "openai", "pydantic")


class ManifestKind(StrEnum):
    """What the files beside a manifest are."""

    DATASET = "dataset"
    GENERATION = "generation"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of manifest.json. `configuration` and `report` are JSON values without secrets.

    `training` is how to train on the files, the commands to be run in the dataset's folder.
    """

    seed: int
    configuration: Mapping[str, object]
    counts: Mapping[str, int]
    skipped: Mapping[str, object]
    files: Sequence[WrittenFile]
    report: Mapping[str, object] | None = None
    training: Sequence[Mapping[str, object]] = ()

    def to_json(self) -> bytes:
        """The text of manifest.json."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        return json_text({"generator": GENERATOR, "kind": ManifestKind.DATASET, "versions": versions(), **facts})


def is_ours(folder: Path, kind: ManifestKind) -> bool:
    """Whether the manifest in `folder` says that this package wrote it, beside files of this kind."""
    try:
        manifest = parse_json((folder / MANIFEST_NAME).read_bytes())
    except (OSError, InputError):
        return False
    if not isinstance(manifest, dict) or manifest.get("generator") != GENERATOR:
        return False
    # Datasets once did not say what they are.
    return bool(manifest.get("kind", ManifestKind.DATASET) == kind)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that shape a dataset."""
    found = {"python": python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
