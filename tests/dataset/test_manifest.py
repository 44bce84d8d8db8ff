import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.manifest import MANIFEST_NAME, Manifest, ManifestKind, is_ours, versions

MANIFEST = Manifest(
    seed=7,
    configuration={"min_score_diff": 0.5},
    counts={"train_pairs": 3},
    skipped={"pairs": {"tie": 2}},
    files=[WrittenFile("trl/train.jsonl", 3, 120, "ab" * 32)],
)


def test_a_manifest_says_what_the_dataset_is_made_of() -> None:
    assert json.loads(MANIFEST.to_json()) == {
        "generator": "nat-dpo-pipeline",
        "kind": "dataset",
        "versions": versions(),
        "seed": 7,
        "configuration": {"min_score_diff": 0.5},
        "counts": {"train_pairs": 3},
        "skipped": {"pairs": {"tie": 2}},
        "files": [{"path": "trl/train.jsonl", "rows": 3, "size": 120, "sha256": "ab" * 32}],
        "report": None,
        "training": [],
    }


def test_versions_are_those_that_are_installed() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["nat-dpo-pipeline"] == version("nat-dpo-pipeline")
    assert {"nvidia-nat", "openai", "pydantic"} <= found.keys()


def test_a_folder_with_our_manifest_is_ours(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(MANIFEST.to_json())
    assert is_ours(tmp_path, ManifestKind.DATASET)
    assert not is_ours(tmp_path, ManifestKind.GENERATION)
    # As it once was.
    (tmp_path / MANIFEST_NAME).write_text('{"generator": "nat-dpo-pipeline"}')
    assert is_ours(tmp_path, ManifestKind.DATASET)
    assert not is_ours(tmp_path, ManifestKind.GENERATION)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"generator": "other"}', '{"generator": ["nat-dpo-pipeline"]}']
)
def test_a_folder_with_another_manifest_is_not_ours(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    assert not is_ours(tmp_path, ManifestKind.DATASET)


def test_a_folder_without_a_manifest_is_not_ours(tmp_path: Path) -> None:
    assert not is_ours(tmp_path, ManifestKind.DATASET)
    assert not is_ours(tmp_path / "absent", ManifestKind.DATASET)
    (tmp_path / MANIFEST_NAME).mkdir()
    assert not is_ours(tmp_path, ManifestKind.DATASET)
