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
from trl.trainer import dpo_trainer

from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.writer import Provenance, write_dataset
from nat_dpo_pipeline.errors import ConfigurationError, TrainingError
from nat_dpo_pipeline.trainers.trl.control import Parent, Reporter, StopSignal
from nat_dpo_pipeline.trainers.trl.data import read_rows, tokenized
from nat_dpo_pipeline.trainers.trl.job import JobFolder, TrlJob
from nat_dpo_pipeline.trainers.trl.models import load_model, settled
from nat_dpo_pipeline.trainers.trl.scoring import log_probabilities, pair_scores
from nat_dpo_pipeline.trainers.trl.settings import Device, LoraSettings, Precision, TrlSettings
from nat_dpo_pipeline.trainers.trl.tiny import make_tiny_model
from nat_dpo_pipeline.trainers.trl.training import Surroundings, check_loss, train
from nat_dpo_pipeline.trainers.trl.verdict import preference

pytestmark = pytest.mark.filterwarnings("ignore")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
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
    check_loss(1, 25.0, settings.model_copy(update={"loss_type": ["ipo"]}))
    with pytest.raises(TrainingError, match=r"the first loss is 0\.0171 and not 0\.6931 \(ln 2\)"):
        check_loss(1, 0.0171, settings)
    with pytest.raises(TrainingError, match="the loss is nan at step 7: lower learning_rate"):
        check_loss(7, float("nan"), settings)


def test_without_auto_the_cpu_trains_in_32_bits(tmp_path: Path) -> None:
    found = settled(TrlSettings(model="tiny", output_dir=tmp_path, device=Device.CPU))
    assert (found.device, found.precision) == (Device.CPU, Precision.FP32)


def test_checkpoints_are_a_matter_of_time_unless_steps_are_given(trained: Train) -> None:
    folder, _ = trained(epochs=1, save_every=None)
    assert not list(folder.checkpoints.glob("checkpoint-*"))


def test_the_weights_are_not_hashed(trained: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL does it for a cache that is empty here; of large models it takes longer than many a training."""

    def hash_module(_: Any) -> str:
        raise AssertionError("hashed")

    monkeypatch.setattr(dpo_trainer, "hash_module", hash_module)
    trained(epochs=1)
    assert dpo_trainer.hash_module is hash_module


@gpu
def test_a_gpu_trains_in_bf16_unless_told_otherwise(trained: Train) -> None:
    folder, found = trained(device=Device.AUTO)
    assert found["held_out_accuracy_after"] > found["held_out_accuracy_before"]
    result = json.loads(folder.result.read_text())
    assert (result["settings"]["device"], result["settings"]["precision"]) == ("cuda", "bf16")
    assert result["ran_on"]["device"] == torch.cuda.get_device_name()
    assert result["ran_on"]["peak_memory_gib"] > 0


@gpu
@pytest.mark.parametrize("lora", [None, LoraSettings(r=8)], ids=["full", "lora"])
def test_fp16_learns_and_its_skipped_steps_leave_the_curves_whole(lora: LoraSettings | None, trained: Train) -> None:
    folder, found = trained(
        device=Device.CUDA, precision=Precision.FP16, lora=lora, learning_rate=1e-2 if lora else 5e-4
    )
    assert found["held_out_accuracy_after"] > found["held_out_accuracy_before"]
    for line in folder.metrics.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@gpu
def test_memory_that_runs_out_is_one_line(trained: Train) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.0001)
    try:
        with pytest.raises(
            TrainingError, match=r"the memory of .* ran out \(.*GiB.*\): try batch_size 2 with "
        ) as caught:
            trained(device=Device.CUDA, batch_size=5, log_every=1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "\n" not in str(caught.value)


@gpu
def test_what_a_gpu_finds_in_batches_is_what_the_cpu_finds(dataset: JobFolder, model: Path) -> None:
    pairs = tokenized(read_rows(dataset.rows(SplitName.TRAIN)), AutoTokenizer.from_pretrained(model), 64).pairs
    on_cpu = pair_scores(AutoModelForCausalLM.from_pretrained(model), pairs, Precision.FP32)
    on_gpu = pair_scores(AutoModelForCausalLM.from_pretrained(model).to("cuda"), pairs, Precision.FP32)
    assert [one.margin for one in on_gpu] == pytest.approx([one.margin for one in on_cpu], abs=0.01)


def test_what_is_measured_are_the_tokens_that_trl_trains_on(dataset: JobFolder, model: Path, tmp_path: Path) -> None:
    rows = read_rows(dataset.rows(SplitName.TRAIN))
    tokenizer = AutoTokenizer.from_pretrained(model)
    settings = TrlSettings(model=str(model), output_dir=tmp_path, max_length=64, device=Device.CPU)
    args = DPOConfig(output_dir=str(tmp_path), max_length=64, use_cpu=True, bf16=False, report_to="none")
    theirs = DPOTrainer(
        load_model(str(model), settled(settings)),
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


@pytest.mark.parametrize("sequences_at_once", [2, 5, 100])
def test_sequences_together_come_to_what_each_comes_to_alone(
    sequences_at_once: int, dataset: JobFolder, model: Path
) -> None:
    network = AutoModelForCausalLM.from_pretrained(model).eval()
    pairs = tokenized(read_rows(dataset.rows(SplitName.TRAIN)), AutoTokenizer.from_pretrained(model), 64).pairs
    lengths = range(1, len(pairs[0].chosen) + 1)
    sequences = [(pairs[0].prompt, pairs[0].chosen[:length]) for length in lengths]
    longest = len(pairs[0].prompt) + len(pairs[0].chosen)
    with torch.no_grad():
        alone = log_probabilities(network, sequences)
        together = log_probabilities(network, sequences, sequences_at_once * longest * network.config.vocab_size)
    assert together == pytest.approx(alone, abs=1e-3)
    assert alone == sorted(alone, reverse=True), "a longer answer is never likelier"
