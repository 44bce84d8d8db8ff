from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from nat.runtime.loader import load_config

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("*.yml"))
NAMES = [file.name for file in FILES]


@pytest.fixture(autouse=True)
def _in_the_project_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths in the files are relative to it."""
    monkeypatch.chdir(ROOT)
    for name in ("NVIDIA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def _source(file: Path) -> dict[str, Any]:
    source: dict[str, Any] = yaml.safe_load(file.read_text())
    return source


def _sections(source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The sections of our components."""
    yield source["workflow"]
    yield from (entry for entry in source.get("llms", {}).values() if entry["_type"] == "dpo_demo")
    for part in ("trajectory_builders", "trainers", "trainer_adapters"):
        yield from source[part].values()


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_configuration_loads_and_is_complete(file: Path) -> None:
    config = load_config(file)
    assert config.finetuning.enabled
    assert config.finetuning.trainer in config.trainers
    assert config.finetuning.trajectory_builder in config.trajectory_builders
    assert config.finetuning.trainer_adapter in config.trainer_adapters
    assert config.workflow.type in {"preference_data", "scored_candidates"}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_every_section_of_ours_refuses_an_unknown_key(file: Path, tmp_path: Path) -> None:
    count = len(list(_sections(_source(file))))
    assert count >= 4
    for place in range(count):
        source = _source(file)
        section = list(_sections(source))[place]
        section["zzz_unknown"] = 1
        changed = tmp_path / f"{place}.yml"
        changed.write_text(yaml.safe_dump(source))
        with pytest.raises(ValueError, match=rf"{section['_type']} has no 'zzz_unknown'"):
            load_config(changed)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_what_a_configuration_writes_goes_below_runs(file: Path) -> None:
    config = load_config(file)
    folders = [config.finetuning.output_dir, config.eval.general.output_dir]
    for adapter in config.trainer_adapters.values():
        folders += [getattr(adapter, name) for name in ("output_dir", "dataset_output_dir") if hasattr(adapter, name)]
    assert {folder.parts[:2] for folder in folders} == {("runs", file.stem)}


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_the_dataset_of_a_configuration_is_there(file: Path) -> None:
    assert Path(_source(file)["eval"]["general"]["dataset"]["file_path"]).is_file()


def test_every_file_is_a_configuration_or_used_by_one() -> None:
    texts = [file.read_text() for file in FILES]
    others = {file for file in (ROOT / "configs").rglob("*") if file.is_file()} - set(FILES)
    assert {file.name for file in others if not any(file.name in text for text in texts)} == set()


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_configuration_names_its_command(file: Path) -> None:
    comment = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any(f"--config_file configs/{file.name}" in line for line in comment)
