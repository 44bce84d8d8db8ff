"""TRL's own preprocessing reads what is written. Runs where trl is installed: `make readers`."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs torch and trl: make readers")

import datasets
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import DPOConfig, DPOTrainer
from trl.scripts.dpo import main as run_dpo
from trl.scripts.dpo import make_parser

from nat_dpo_pipeline.core.messages import messages_of
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.formats.format import only_text
from nat_dpo_pipeline.dataset.training.settings import TrainingSettings
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset

pytestmark = pytest.mark.filterwarnings("ignore")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
END = "<|im_end|>"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, so that whatever was written can be decoded again."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<|im_start|>", END]
    inner.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=special))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token=END)
    wrapped.chat_template = TEMPLATE
    return wrapped


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny one with its tokenizer, as TRL loads the reference from disk."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    folder = tmp_path_factory.mktemp("model")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, awkward: Any) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    splits = {SplitName.TRAIN: [*awkward.rows, awkward.surrogate], SplitName.VALIDATION: awkward.rows[:1]}
    names = ("trl", "trl_standard", "tulu3", "kto")
    written = write_dataset(folder, splits, Provenance(0, {}, {}), Target(names, parquet=False))
    assert written.refused["rows"] == {"invalid_unicode": 1}
    return folder


def _loaded(folder: Path, name: str, cache: Path) -> Any:
    return datasets.load_dataset(str(folder), name, split="train", cache_dir=str(cache))


def _settings(folder: Path, kind: Any, **more: Any) -> Any:
    return kind(
        output_dir=str(folder),
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        **more,
    )


def _trainer(rows: Any, model: Any, tokenizer: Any, folder: Path) -> DPOTrainer:
    settings = _settings(folder, DPOConfig, precompute_ref_log_probs=False)
    return DPOTrainer(model, args=settings, train_dataset=rows, processing_class=tokenizer)


@pytest.mark.parametrize("name", ["trl", "tulu3"])
def test_dpo_trains_on_conversations(
    name: str, awkward: Any, folder: Path, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """Tulu3's rows have the prompt inside both sides, from where TRL takes it."""
    trainer = _trainer(_loaded(folder, name, tmp_path), model, tokenizer, tmp_path)
    decoded = [
        {key: tokenizer.decode(row[key]) for key in ("prompt_ids", "chosen_ids", "rejected_ids")}
        for row in trainer.train_dataset
    ]
    assert decoded == [_expected(row) for row in awkward.carried(name)]


def _expected(row: PreferenceRow) -> dict[str, str]:
    prompt = "".join(f"<|im_start|>{one.role}\n{one.content}{END}\n" for one in messages_of(row.prompt))
    return {
        "prompt_ids": f"{prompt}<|im_start|>assistant\n",
        "chosen_ids": f"{row.chosen}{END}\n",
        "rejected_ids": f"{row.rejected}{END}\n",
    }


def test_dpo_trains_on_plain_text(awkward: Any, folder: Path, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    trainer = _trainer(_loaded(folder, "trl_standard", tmp_path), model, tokenizer, tmp_path)
    decoded = [
        (tokenizer.decode(row["prompt_ids"]), tokenizer.decode(row["chosen_ids"])) for row in trainer.train_dataset
    ]
    assert decoded == [(only_text(row.prompt), f"{row.chosen}{END}") for row in awkward.carried("trl_standard")]


def test_one_step_of_training(awkward: Any, folder: Path, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    """The first loss of DPO is the logarithm of 2."""
    rows = _loaded(folder, "trl", tmp_path).filter(lambda row: len(row["chosen"][0]["content"]) < len(awkward.long))
    settings = _settings(tmp_path, DPOConfig, max_steps=1, logging_steps=1, per_device_train_batch_size=4)
    trainer = DPOTrainer(model, args=settings, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)


def test_kto_reads_the_unpaired_rows(awkward: Any, folder: Path, model: Any, tokenizer: Any, tmp_path: Path) -> None:
    try:
        from trl import KTOConfig, KTOTrainer
    except ImportError:
        from trl.experimental.kto import KTOConfig, KTOTrainer
    rows = _loaded(folder, "kto", tmp_path)
    settings = _settings(tmp_path, KTOConfig, per_device_train_batch_size=2)
    trainer = KTOTrainer(model, args=settings, train_dataset=rows, processing_class=tokenizer)
    assert len(trainer.train_dataset) == 2 * len(awkward.carried("kto"))
    assert sum(trainer.train_dataset["label"]) == len(awkward.carried("kto"))


def _configured(folder: Path, model: str, validation: int, *, lora: bool) -> None:
    rows = [PreferenceRow(f"Why {n}?", f"Because of {n}.", "No idea.", 2.0, 1.0, "e", f"{n}") for n in range(8)]
    splits = {SplitName.TRAIN: rows[validation:], SplitName.VALIDATION: rows[:validation]}
    training = TrainingSettings(model=model, beta=0.25, batch_size=4, max_length=200, learning_rate=1e-2, lora=lora)
    write_dataset(folder, splits, Provenance(0, {}, {}), Target(training=training))


def test_the_command_line_takes_every_key_of_the_configuration(model: str, tmp_path: Path) -> None:
    _configured(tmp_path, model, 2, lora=True)
    parser = make_parser()
    script, training, configured, _ = parser.parse_args_and_config(
        ["--config", str(tmp_path / "trl" / "dpo.yaml"), "--use_cpu"]
    )
    assert (script.dataset_name, script.dataset_test_split) == ("./trl", "validation")
    assert (training.beta, training.max_length, training.learning_rate) == (0.25, 200, 1e-2)
    assert (training.gradient_accumulation_steps, str(training.eval_strategy.value)) == (4, "epoch")
    assert (configured.model_name_or_path, configured.use_peft, configured.lora_r) == (model, True, 16)
    assert configured.lora_target_modules == "all-linear"


@pytest.mark.parametrize("validation", [0, 2])
def test_the_configuration_trains(validation: int, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that `trl dpo --config trl/dpo.yaml` does, in a folder that has been moved."""
    _configured(tmp_path / "dataset", model, validation, lora=False)
    monkeypatch.chdir((tmp_path / "dataset").rename(tmp_path / "moved"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    run_dpo(*make_parser().parse_args_and_config(["--config", "trl/dpo.yaml", "--use_cpu"]))
    (trained,) = (tmp_path / "trained").iterdir()
    (state,) = trained.glob("checkpoint-*/trainer_state.json")
    log = json.loads(state.read_bytes())["log_history"]
    assert log[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert any("eval_loss" in entry for entry in log) is (validation > 0)
    assert (trained / "model.safetensors").is_file()
