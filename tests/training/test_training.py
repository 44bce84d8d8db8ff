"""Settings of the training, in this process. Runs where trl is installed: `make training`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs torch and trl: make training")

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.writer import Provenance, write_dataset
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.trl.control import Parent, Reporter, StopSignal
from nat_dpo_pipeline.trainers.trl.data import read_rows, tokenized
from nat_dpo_pipeline.trainers.trl.job import JobFolder, TrlJob
from nat_dpo_pipeline.trainers.trl.models import load_model
from nat_dpo_pipeline.trainers.trl.scoring import pair_scores
from nat_dpo_pipeline.trainers.trl.settings import Device, LoraSettings, Precision, TrlSettings
from nat_dpo_pipeline.trainers.trl.tiny import make_tiny_model
from nat_dpo_pipeline.trainers.trl.training import Surroundings, check_loss, train
from nat_dpo_pipeline.trainers.trl.verdict import preference

pytestmark = pytest.mark.filterwarnings("ignore")
Train = Callable[..., tuple[JobFolder, Mapping[str, float]]]


@pytest.fixture(scope="module")
def dataset(data: Callable[..., Any], tmp_path_factory: Any) -> JobFolder:
    folder = JobFolder(tmp_path_factory.mktemp("pairs"))
    write_dataset(folder.dataset, data().splits, Provenance(0, {}, {}))
    return folder


@pytest.fixture(scope="module")
def model(dataset: JobFolder, tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("made") / "tiny"
    make_tiny_model(folder, read_rows(dataset.rows(SplitName.TRAIN)), 5, lambda: None)
    return folder


@pytest.fixture
def trained(model: Path, settings: Callable[..., TrlSettings], data: Callable[..., Any], tmp_path: Path) -> Train:
    """Trains with the given settings, and rows beside the usual ones."""

    def run(*more: PreferenceRow, **given: Any) -> tuple[JobFolder, Mapping[str, float]]:
        folder = JobFolder(tmp_path)
        write_dataset(folder.dataset, data("run", *more).splits, Provenance(0, {}, {}))
        job = TrlJob("run", 5, settings(tmp_path, **{"model": str(model), **given}))
        _, found = train(job, Surroundings(folder, Reporter(folder), StopSignal(), Parent(None)))
        return folder, found

    return run


def _held_out_margin(folder: JobFolder, model: Any) -> float:
    tokenizer = AutoTokenizer.from_pretrained(folder.model)
    held_out = tokenized(read_rows(folder.rows(SplitName.VALIDATION)), tokenizer, 64)
    found = preference(pair_scores(model, held_out.pairs, Precision.FP32))
    assert found is not None
    return found.margin


def test_lora_is_merged(trained: Train) -> None:
    folder, found = trained(lora=LoraSettings(r=8), learning_rate=1e-2)
    assert found["held_out_accuracy_after"] > found["held_out_accuracy_before"]
    assert not (folder.model / "adapter_config.json").exists()
    margin = _held_out_margin(folder, AutoModelForCausalLM.from_pretrained(folder.model))
    assert margin == pytest.approx(found["held_out_margin_after"], abs=0.01)
    assert json.loads(folder.result.read_text())["model"]["kind"] == "merged"


def test_lora_is_kept_apart(trained: Train, model: Path) -> None:
    modules = ("q_proj", "v_proj")
    folder, found = trained(
        lora=LoraSettings(r=8, merge=False, target_modules=modules, dropout=0.1), learning_rate=1e-2
    )
    assert not (folder.model / "model.safetensors").exists()
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder.model)
    assert _held_out_margin(folder, adapted) == pytest.approx(found["held_out_margin_after"], abs=0.01)


def test_a_module_that_the_model_lacks_is_one_line(trained: Train) -> None:
    with pytest.raises(ConfigurationError, match=r"TRL or PEFT refuses the settings: .*no_such_module"):
        trained(lora=LoraSettings(target_modules=("no_such_module",)))


def test_half_precision_and_recomputed_activations_learn_too(trained: Train) -> None:
    _, found = trained(precision=Precision.BF16, gradient_checkpointing=True)
    assert found["held_out_accuracy_after"] > found["held_out_accuracy_before"]


@pytest.mark.parametrize(
    "given",
    [
        {"loss_type": ("ipo",)},
        {"loss_type": ("robust",), "label_smoothing": 0.1},
        {"loss_type": ("sigmoid", "sft"), "gradient_accumulation": 2},
    ],
    ids=["ipo", "robust", "two"],
)
def test_other_losses_train(given: dict[str, Any], trained: Train) -> None:
    _, found = trained(epochs=1, **given)
    assert found["held_out_margin_after"] > found["held_out_margin_before"]


LONG = PreferenceRow("What is " + "so very long " * 40, "Here.", "Nobody.")


def test_rows_that_trl_would_drop_are_counted(trained: Train) -> None:
    folder, _ = trained(LONG, epochs=1)
    training = json.loads(folder.result.read_text())["training"]
    assert (training["pairs"], training["dropped_for_length"]) == (27, 1)


def test_too_many_such_rows_are_refused(trained: Train) -> None:
    with pytest.raises(TrainingError, match=r"3 of 30 training pairs \(10%\) do not fit into max_length 64"):
        trained(*(replace(LONG, prompt=f"{number} {LONG.prompt}") for number in range(3)))


def test_a_model_without_a_chat_template_is_one_line(trained: Train, model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(bare)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    with pytest.raises(ConfigurationError, match="no chat template") as caught:
        trained(model=str(bare))
    assert "\n" not in str(caught.value)


def test_a_sequence_longer_than_the_model_can_hold_is_one_line(trained: Train) -> None:
    with pytest.raises(ConfigurationError, match="max_length is 4096, but the model has 1024 positions"):
        trained(max_length=4096)


def test_a_model_that_is_not_there_is_one_line(trained: Train, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"the tokenizer of '.*empty' cannot be loaded: ") as caught:
        trained(model=str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_one_line(trained: Train) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigurationError, match="torch sees no GPU"):
        trained(device=Device.CUDA)
    with pytest.raises(ConfigurationError, match="precision is fp16, but there is no GPU"):
        trained(device=Device.AUTO, precision=Precision.FP16)


def test_a_first_loss_that_is_not_ln_2_and_one_that_is_no_number_fail(tmp_path: Path) -> None:
    settings = TrlSettings(model="tiny", output_dir=tmp_path)
    check_loss(1, 0.6931, settings)
    check_loss(2, 0.0171, settings)
    check_loss(1, 25.0, replace(settings, loss_type=("ipo",)))
    with pytest.raises(TrainingError, match=r"the first loss is 0\.0171 and not 0\.6931 \(ln 2\)"):
        check_loss(1, 0.0171, settings)
    with pytest.raises(TrainingError, match="the loss is nan at step 7: lower learning_rate"):
        check_loss(7, float("nan"), settings)


def test_what_is_measured_are_the_tokens_that_trl_trains_on(dataset: JobFolder, model: Path, tmp_path: Path) -> None:
    rows = read_rows(dataset.rows(SplitName.TRAIN))
    tokenizer = AutoTokenizer.from_pretrained(model)
    settings = TrlSettings(model=str(model), output_dir=tmp_path, max_length=64)
    args = DPOConfig(output_dir=str(tmp_path), max_length=64, use_cpu=True, bf16=False, report_to="none")
    theirs = DPOTrainer(
        load_model(str(model), settings, torch.device("cpu")),
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    ).train_dataset
    ours = tokenized(rows, tokenizer, 64).pairs
    assert [(tuple(row["prompt_ids"]), tuple(row["chosen_ids"]), tuple(row["rejected_ids"])) for row in theirs] == [
        (pair.prompt, pair.chosen, pair.rejected) for pair in ours
    ]


def test_a_log_probability_is_the_sum_over_the_answer(dataset: JobFolder, model: Path) -> None:
    """Against the plain definition: the softmax of every position, one token at a time."""
    network = AutoModelForCausalLM.from_pretrained(model)
    pair = tokenized(read_rows(dataset.rows(SplitName.TRAIN))[:1], AutoTokenizer.from_pretrained(model), 64).pairs[0]
    (found,) = pair_scores(network, [pair], Precision.FP32)

    def slowly(answer: tuple[int, ...]) -> float:
        total = 0.0
        for place, token in enumerate(answer):
            with torch.no_grad():
                logits = network.eval()(torch.tensor([[*pair.prompt, *answer[:place]]])).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
        return total

    assert found.margin == pytest.approx(slowly(pair.chosen) - slowly(pair.rejected), abs=1e-3)
