"""Which formats `nat dpo generate` writes."""

from pathlib import Path

import pytest
import yaml

from nat_dpo_pipeline.dataset.card import About
from nat_dpo_pipeline.dataset.writer import Target
from nat_dpo_pipeline.plugin.nat_api import Config, load_config
from nat_dpo_pipeline.plugin.pairing import adapter_of, target_of
from nat_dpo_pipeline.plugin.trainer_config import DatasetTrainerAdapterConfig

GUIDE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")


def _config(folder: Path, names: list[str], chosen: str | None) -> Config:
    adapters = {name: {"_type": "dataset_trainer_adapter", "output_dir": "x", "title": name} for name in names}
    source = {
        "workflow": {"_type": "scored_candidates"},
        "trainer_adapters": adapters,
        "finetuning": {"trainer_adapter": chosen},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(source))
    return load_config(folder / "config.yml")


@pytest.mark.parametrize(
    ("names", "chosen", "expected"),
    [([], None, None), (["a"], None, "a"), (["a", "b"], "b", "b"), (["a", "b"], None, None), (["a"], "c", None)],
)
def test_the_adapter_is_the_one_that_is_named_or_the_only_one(
    tmp_path: Path, names: list[str], chosen: str | None, expected: str | None
) -> None:
    adapter = adapter_of(_config(tmp_path, names, chosen))
    assert (None if adapter is None else adapter.title) == expected


def test_the_settings_that_the_guide_shows_are_valid() -> None:
    block = GUIDE.split("```yaml\n")[1].split("```")[0]
    settings = yaml.safe_load(block)["trainer_adapters"]["dataset"]
    settings.pop("_type")
    assert target_of(DatasetTrainerAdapterConfig(**settings)) == Target(
        ("trl", "openai", "llama_factory"), True, About("Tea, preferred", "cc-by-4.0", ("en",))
    )


def test_the_guide_lists_every_format() -> None:
    from nat_dpo_pipeline.dataset.formats import FORMATS

    assert [one.name for one in FORMATS if f"| `{one.name}` " not in GUIDE] == []
