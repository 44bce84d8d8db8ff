"""Which formats `nat dpo generate` writes."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from nat_dpo_pipeline.dataset.card import About
from nat_dpo_pipeline.dataset.training.settings import TrainingSettings
from nat_dpo_pipeline.dataset.writer import Target
from nat_dpo_pipeline.plugin.commands.components import adapter_of
from nat_dpo_pipeline.plugin.finetuning_config import DatasetTrainerAdapterConfig
from nat_dpo_pipeline.plugin.nat_api import Config, load_config

GUIDE = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text(encoding="utf-8")


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
    assert DatasetTrainerAdapterConfig(**settings).target() == Target(
        ("trl", "openai", "llama_factory"),
        True,
        About("Tea, preferred", "cc-by-4.0", ("en",)),
        TrainingSettings(model="meta-llama/Llama-3.2-1B-Instruct", learning_rate=1e-5),
    )


def test_what_training_is_told_arrives(tmp_path: Path) -> None:
    told = TrainingSettings(
        model="m", beta=0.2, epochs=3, learning_rate=1e-5, batch_size=8, max_length=512, lora=False, lora_rank=4
    )
    config = DatasetTrainerAdapterConfig(output_dir=tmp_path, training=told)
    assert config.target().training == told
    assert DatasetTrainerAdapterConfig(output_dir=tmp_path).target().training == TrainingSettings()


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"beta": 0}, "beta is 0: "),
        ({"beta": float("nan")}, "beta is nan: "),
        ({"learning_rate": 0}, "learning_rate is 0: "),
        ({"model": ""}, "model is '': "),
        ({"model": "./mine"}, "give the absolute path"),
        ({"lora_rank": 0}, "lora_rank is 0: "),
        ({"epoch": 1}, "has no 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_what_training_cannot_be_is_refused_in_words(tmp_path: Path, training: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        DatasetTrainerAdapterConfig.model_validate({"output_dir": tmp_path, "training": training})
    assert said in str(raised.value)


def test_the_guide_lists_every_format() -> None:
    from nat_dpo_pipeline.dataset.formats import FORMATS

    assert [one.name for one in FORMATS if f"| `{one.name}` " not in GUIDE] == []
