import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.dataset.files import WrittenFile
from nat_dpo_pipeline.dataset.formats import FORMATS, PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.training.settings import TrainingSettings
from nat_dpo_pipeline.dataset.training.tools import training_file
from nat_dpo_pipeline.dataset.writer import Provenance, Target, WrittenDataset, write_dataset

TOOLS = ("trl", "llama_factory", "axolotl", "nemo_rl", "helix")
SETTINGS = TrainingSettings(
    model="org/Some-Model.1B", beta=0.3, epochs=3, learning_rate=2e-6, batch_size=4, max_length=777, lora_rank=24
)
_ROOT = "${oc.env:DPO_DATASET}/"


def _write(
    folder: Path, settings: TrainingSettings = SETTINGS, train: int = 10, validation: int = 2, *formats: str
) -> WrittenDataset:
    sides = {SplitName.TRAIN: range(train), SplitName.VALIDATION: range(100, 100 + validation)}
    rows = {side: [PreferenceRow(f"Why {n}?", "Because.", "No.") for n in numbers] for side, numbers in sides.items()}
    target = Target(formats or TOOLS, training=settings)
    return write_dataset(folder, rows, Provenance(0, {}, {}), target)


def _values(folder: Path, name: str) -> dict[str, Any]:
    if name == "helix":
        values = json.loads((folder / "helix" / "job.json").read_bytes())
    else:
        values = yaml.safe_load((folder / name / "dpo.yaml").read_bytes())
    assert isinstance(values, dict)
    return values


def _at(values: Mapping[str, Any], path: str) -> object:
    found: Any = values
    for key in path.split("."):
        found = found[key]
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "trl",
            {
                "model_name_or_path": "org/Some-Model.1B",
                "beta": 0.3,
                "num_train_epochs": 3,
                "learning_rate": 2e-6,
                "gradient_accumulation_steps": 4,
                "max_length": 777,
                "use_peft": True,
                "lora_r": 24,
                "lora_alpha": 48,
            },
        ),
        (
            "llama_factory",
            {
                "model_name_or_path": "org/Some-Model.1B",
                "pref_beta": 0.3,
                "num_train_epochs": 3,
                "learning_rate": 2e-6,
                "gradient_accumulation_steps": 4,
                "cutoff_len": 777,
                "finetuning_type": "lora",
                "lora_rank": 24,
                "lora_alpha": 48,
            },
        ),
        (
            "axolotl",
            {
                "base_model": "org/Some-Model.1B",
                "rl_beta": 0.3,
                "num_epochs": 3,
                "learning_rate": 2e-6,
                "gradient_accumulation_steps": 4,
                "sequence_len": 777,
                "adapter": "lora",
                "lora_r": 24,
                "lora_alpha": 48,
            },
        ),
        (
            "nemo_rl",
            {
                "policy.model_name": "org/Some-Model.1B",
                "policy.tokenizer.name": "org/Some-Model.1B",
                "dpo.reference_policy_kl_penalty": 0.3,
                "dpo.max_num_epochs": 3,
                "dpo.max_num_steps": 6,
                "policy.optimizer.kwargs.lr": 2e-6,
                "policy.train_global_batch_size": 4,
                "policy.max_total_sequence_length": 777,
                "policy.dtensor_cfg._v2": True,
                "policy.dtensor_cfg.lora_cfg": {"enabled": True, "dim": 24, "alpha": 48},
            },
        ),
        (
            "helix",
            {
                "model": "default/some-model-1b",
                "training.ref_policy_kl_penalty": 0.3,
                "training.epochs": 3,
                "training.learning_rate": 2e-6,
                "training.batch_size": 4,
                "training.max_seq_length": 777,
            },
        ),
    ],
)
def test_every_setting_arrives(tmp_path: Path, name: str, expected: Mapping[str, object]) -> None:
    _write(tmp_path / "dataset")
    values = _values(tmp_path / "dataset", name)
    assert {path: _at(values, path) for path in expected} == expected


_FILES = {
    "trl": ("dataset_name",),
    "llama_factory": ("dataset_dir",),
    "axolotl": ("datasets.path", "test_datasets.path"),
    "nemo_rl": ("data.train.data_path", "data.validation.data_path"),
}


@pytest.mark.parametrize("name", _FILES)
def test_what_it_reads_is_there_wherever_the_folder_is(tmp_path: Path, name: str) -> None:
    _write(tmp_path / "dataset")
    moved = (tmp_path / "dataset").rename(tmp_path / "moved")
    values = _values(moved, name)
    for key in ("datasets", "test_datasets"):
        if key in values:
            (values[key],) = values[key]
    paths = [str(_at(values, path)).removeprefix(_ROOT) for path in _FILES[name]]
    assert all((moved / path).exists() for path in paths), paths
    assert not any(Path(path).is_absolute() for path in paths)
    assert str(tmp_path) not in (moved / name / "dpo.yaml").read_text()


def test_llama_factory_finds_its_datasets_by_the_names_in_dataset_info(tmp_path: Path) -> None:
    _write(tmp_path)
    values = _values(tmp_path, "llama_factory")
    info = json.loads((tmp_path / values["dataset_dir"] / "dataset_info.json").read_bytes())
    assert {values["dataset"], values["eval_dataset"]} == set(info)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("trl", ("dataset_name", "dataset_test_split")),
        ("llama_factory", ("eval_dataset", "eval_strategy", "per_device_eval_batch_size")),
        ("axolotl", ("test_datasets", "eval_strategy")),
    ],
)
def test_without_validation_rows_nothing_is_validated(tmp_path: Path, name: str, keys: tuple[str, ...]) -> None:
    _write(tmp_path / "with")
    _write(tmp_path / "without", validation=0)
    assert set(keys) <= _values(tmp_path / "with", name).keys()
    assert _values(tmp_path / "without", name).keys().isdisjoint(keys)


def test_trl_reads_one_file_when_the_other_is_empty(tmp_path: Path) -> None:
    """`datasets` cannot read an empty one."""
    _write(tmp_path, validation=0)
    values = _values(tmp_path, "trl")
    assert (values["datasets"], values["eval_strategy"]) == ([{"path": "json", "data_files": "trl/train.jsonl"}], "no")


def test_nemo_rl_is_told_that_there_is_no_validation(tmp_path: Path) -> None:
    _write(tmp_path, validation=0)
    values = _values(tmp_path, "nemo_rl")
    assert values["data"]["validation"] is None
    assert values["checkpointing"]["metric_name"] is None
    told = {key: value for key, value in values["dpo"].items() if key.startswith("val_") and key != "val_batches"}
    assert told == {"val_period": 0, "val_at_start": False, "val_at_end": False}


@pytest.mark.parametrize(("rows", "batch", "steps"), [(3, 3, 3), (4, 4, 3), (9, 4, 6), (1, 1, 3)])
def test_nemo_rl_drops_no_small_dataset_as_a_part_of_a_batch(tmp_path: Path, rows: int, batch: int, steps: int) -> None:
    _write(tmp_path, train=rows)
    values = _values(tmp_path, "nemo_rl")
    assert (values["policy"]["train_global_batch_size"], values["dpo"]["max_num_steps"]) == (batch, steps)
    assert 1 <= values["dpo"]["val_period"] <= steps
    assert _values(tmp_path, "helix")["training"]["batch_size"] == batch


def test_without_lora_all_weights_are_trained_at_their_own_rate(tmp_path: Path) -> None:
    for lora, rate in ((True, 5e-6), (False, 5e-7)):
        _write(tmp_path / str(lora), TrainingSettings(lora=lora))
        trl, factory, axolotl, nemo_rl, helix = (_values(tmp_path / str(lora), name) for name in TOOLS)
        assert ("use_peft" in trl, "adapter" in axolotl, "dtensor_cfg" in nemo_rl["policy"]) == (lora, lora, lora)
        assert factory["finetuning_type"] == ("lora" if lora else "full")
        assert ("lora_rank" in factory) is lora
        assert trl["learning_rate"] == factory["learning_rate"] == axolotl["learning_rate"] == rate
        assert nemo_rl["policy"]["optimizer"]["kwargs"]["lr"] == rate
        assert helix["training"]["learning_rate"] == 5e-7, "Helix has no LoRA for DPO"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("trl", "output_dir"),
        ("llama_factory", "output_dir"),
        ("axolotl", "output_dir"),
        ("axolotl", "dataset_prepared_path"),
        ("nemo_rl", "checkpointing.checkpoint_dir"),
        ("nemo_rl", "logger.log_dir"),
    ],
)
def test_the_next_dataset_does_not_replace_what_was_trained(tmp_path: Path, name: str, path: str) -> None:
    def output(folder: str, settings: TrainingSettings = SETTINGS, train: int = 10) -> str:
        _write(tmp_path / folder, settings, train)
        return str(_at(_values(tmp_path / folder, name), path)).removeprefix(_ROOT)

    first = output("dataset")
    trained = (tmp_path / "dataset" / first).resolve()
    assert not trained.is_relative_to(tmp_path / "dataset")
    assert trained.is_relative_to(tmp_path)
    assert output("dataset") == first
    assert len({first, output("dataset", train=11), output("dataset", TrainingSettings())}) == 3


def test_the_manifest_and_the_card_say_how_to_train(tmp_path: Path) -> None:
    written = _write(tmp_path, SETTINGS, 10, 2, *(one.name for one in FORMATS))
    manifest, card = json.loads((tmp_path / "manifest.json").read_bytes()), (tmp_path / "README.md").read_text()
    assert {entry["format"] for entry in manifest["training"]} == {file.format for file in written.training}
    assert {file.format for file in written.training} == set(TOOLS)
    for entry in manifest["training"]:
        assert entry["file"] in {file["path"] for file in manifest["files"]}
        assert any(entry["file"] in command for command in entry["commands"])
        assert all(command in card for command in entry["commands"])
        assert entry["needs"] in card


def test_the_commands_of_helix_upload_what_was_written(tmp_path: Path) -> None:
    (file,) = _write(tmp_path, SETTINGS, 10, 2, "helix").training
    commands = [shlex.split(command) for command in file.commands]
    uploads = [command for command in commands if command[:3] == ["nemo", "files", "upload"]]
    assert [(command[3], command[-1]) for command in uploads] == [
        ("helix/training.jsonl", "training.jsonl"),
        ("helix/validation.jsonl", "validation.jsonl"),
    ]
    assert all((tmp_path / command[3]).is_file() for command in uploads)
    job = _values(tmp_path, "helix")
    assert {f"default/{command[4]}" for command in uploads} == {job["dataset"]}
    storage, entity = (json.loads(command[-1]) for command in commands if command[-2] in ("--storage", "--input-data"))
    assert storage["repo_id"] == SETTINGS.model
    assert f"default/{entity['name']}" == job["model"]
    # It refuses an empty file and splits itself where there is none.
    (file,) = _write(tmp_path, SETTINGS, 10, 0, "helix").training
    assert not any("validation" in command for command in file.commands)


def test_helix_takes_a_model_from_a_folder(tmp_path: Path) -> None:
    (file,) = _write(tmp_path, TrainingSettings(model="/models/my own"), 10, 2, "helix").training
    upload = next(shlex.split(command) for command in file.commands if "my own" in command)
    assert upload[:5] == ["nemo", "files", "upload", "/models/my own/", "my-own"]


def test_there_is_nothing_to_train_without_a_row(tmp_path: Path) -> None:
    assert _write(tmp_path, train=0).training == ()
    assert not list(tmp_path.glob("*/dpo.yaml"))
    assert "How to train" not in (tmp_path / "README.md").read_text()


@given(
    st.text(min_size=1).filter(lambda model: not model.startswith((".", "~"))),
    st.sampled_from([name for name in TOOLS if name != "helix"]),
)
def test_any_name_of_a_model_arrives(model: str, name: str) -> None:
    files = {side: WrittenFile(f"{name}/{side}.jsonl", 1, 0, "0" * 64) for side in SplitName}
    file = training_file(name, TrainingSettings(model=model), files)
    assert file is not None
    values = yaml.safe_load(file.text)
    found = {"axolotl": "base_model", "nemo_rl": "policy.model_name"}.get(name, "model_name_or_path")
    assert _at(values, found) == model
