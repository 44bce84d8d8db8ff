"""manifest.json: what a dataset is made of, written last, so that its presence says the dataset is whole."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

import orjson

from nat_dpo_pipeline.dataset.files import WrittenFile, json_text

MANIFEST_NAME = "manifest.json"
GENERATOR = "nat-dpo-pipeline"
_VERSIONED = (GENERATOR, "nvidia-nat", "openai", "pydantic")


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
        return json_text({"generator": GENERATOR, "versions": versions(), **asdict(self)})


def is_ours(folder: Path) -> bool:
    """Whether the manifest in `folder` says that this package wrote the dataset there."""
    try:
        manifest = orjson.loads((folder / MANIFEST_NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    return isinstance(manifest, dict) and manifest.get("generator") == GENERATOR


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that shape a dataset."""
    found = {"python": python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
