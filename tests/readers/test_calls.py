"""What TRL tokenizes of rows with calls holds the recorded calls, by the chat templates of real families of models.

The `trl` wheel ships copies of the templates. Runs where trl is installed: `make readers`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs torch and trl: make readers")

import datasets
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import DPOConfig, DPOTrainer

from nat_dpo_pipeline.core.messages import Message, Prompt, ToolCall, reply_of
from nat_dpo_pipeline.core.rendering import with_tools
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.inspecting import Looking, Problem, inspect
from nat_dpo_pipeline.dataset.rendered import ChatTemplate, lost_call
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings

pytestmark = pytest.mark.filterwarnings("ignore")
# The newest template of each family that renders calls.
FAMILIES = (
    "qwen2_5",
    "qwen3",
    "qwen3_5_think",
    "llama3_1",
    "llama3_2",
    "glm4moe",
    "gptoss",
    "gemma4_v5",
    "nemotron_3_nano",
    "nemotron_3_ultra",
    "lfm2_2_5_v2",
    "muse_glimmer",
)
# Templates that leave calls out without a word, or want arguments as text.
DROP_CALLS = ("phi3_5", "deepseek_r1_distill", "qwen2_5_vl", "llama3")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Look.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "climate", "description": "Mean.", "parameters": {"type": "object"}}},
]


def _call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, json.dumps(arguments), "call00001")


def _called(name: str, **arguments: Any) -> str:
    return reply_of(Message("assistant", "", (_call(name, **arguments),)))


def _rows() -> list[PreferenceRow]:
    asked = with_tools("Cold in Oslo?", TOOLS)
    answered: Prompt = (
        *(one for one in asked if isinstance(one, Message)),
        Message("assistant", "", (_call("weather", city="Oslo", days=4),)),
        Message("tool", "SECRET RESULT", tool_call_id="call00001", name="weather"),
    )
    return [
        PreferenceRow(asked, _called("weather", city="Oslo", days=2), _called("climate", years=30), 1.0, 0.0, "a", "t"),
        PreferenceRow(answered, _called("weather", city="Bergen", days=7), "Rather cold.", 1.0, 0.0, "b", "t"),
        PreferenceRow("Cold in Rome?", "No.", "Yes.", 1.0, 0.0, "c", "t"),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, {SplitName.TRAIN: _rows()}, Provenance(0, {}, {}), Target(("trl",), parquet=True))
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<bos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=special))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny one, as TRL loads the reference from disk."""
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, **heads)
    folder = tmp_path_factory.mktemp("model")
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return str(folder)


def _template(name: str) -> str:
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _loaded(folder: Path, suffix: str, cache: Path) -> Any:
    kind = "json" if suffix == "jsonl" else "parquet"
    return datasets.load_dataset(
        kind, data_files=str(folder / "trl" / f"train.{suffix}"), split="train", cache_dir=str(cache)
    )


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_calls_are_in_what_trl_trains_on(
    family: str, suffix: str, folder: Path, model: str, tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer.chat_template = _template(family)
    settings = DPOConfig(
        output_dir=str(tmp_path), max_length=None, bf16=False, gradient_checkpointing=False, use_cpu=True,
        report_to="none", precompute_ref_log_probs=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        model, args=settings, train_dataset=_loaded(folder, suffix, tmp_path), processing_class=tokenizer
    )
    lines = [json.loads(line) for line in (folder / "trl" / "train.jsonl").read_bytes().splitlines()]
    for row, line in zip(trainer.train_dataset, lines, strict=True):
        prompt, *answers = (tokenizer.decode(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected"))
        assert lost_call(line["prompt"], prompt) is None
        for side, answer in zip(("chosen", "rejected"), answers, strict=True):
            # A call of a prompt is in the prompt, and what a tool said in no answer.
            assert lost_call(line[side], answer) is None, answer
            assert "SECRET RESULT" not in answer
            assert "null" not in answer
            assert "None" not in answer
        assert answers[0] != answers[1]


@pytest.mark.parametrize("family", DROP_CALLS)
def test_a_template_that_drops_calls_is_found(family: str, folder: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = _template(family)
    line = json.loads((folder / "trl" / "train.jsonl").read_bytes().splitlines()[0])
    text = tokenizer.apply_chat_template(line["prompt"] + line["chosen"], tools=TOOLS, tokenize=False)
    assert lost_call(line["chosen"], text) is not None or '"name"' not in text.split("Oslo?")[-1]


def test_arguments_as_text_are_found_encoded_twice(tokenizer: Any) -> None:
    tokenizer.chat_template = _template("qwen2_5")
    call = {"type": "function", "function": {"name": "weather", "arguments": json.dumps({"city": "Oslo"})}}
    messages = [{"role": "user", "content": "Cold?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    right = {**call, "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    assert lost_call([{"role": "assistant", "tool_calls": [right]}], text) == "weather"


def test_inspect_says_what_a_template_does_to_rows(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    train = folder / "trl" / "train.jsonl"
    for family, expected in (
        ("qwen3", {}),
        ("phi3_5", {Problem.CALL_LOST: 2}),
        ("deepseekv3", {Problem.NOT_RENDERED: 2}),
    ):
        tokenizer.chat_template = _template(family)
        tokenizer.save_pretrained(tmp_path / family)
        (report,) = inspect([train], Looking(template=ChatTemplate(str(tmp_path / family))))
        assert {problem: count for problem, count in report.problems.items() if problem in RENDERED} == expected
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        ChatTemplate(str(tmp_path / "nowhere"))


RENDERED = (Problem.CALL_LOST, Problem.NOT_RENDERED)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["trl_standard", "oumi"])
def test_rendered_texts_are_what_trl_makes_of_the_messages(
    name: str, family: str, folder: Path, model: str, tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer.chat_template = _template(family)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    target = DatasetSettings(formats=[name], render=str(tmp_path / "tokenizer")).target()
    write_dataset(tmp_path / "texts", {SplitName.TRAIN: _rows()}, Provenance(0, {}, {}), target)
    texts = [json.loads(line) for line in (tmp_path / "texts" / name / "train.jsonl").read_bytes().splitlines()]
    settings = DPOConfig(
        output_dir=str(tmp_path), max_length=None, bf16=False, gradient_checkpointing=False, use_cpu=True,
        report_to="none", precompute_ref_log_probs=False,
    )  # fmt: skip
    rows = _loaded(folder, "jsonl", tmp_path)
    trained = DPOTrainer(model, args=settings, train_dataset=rows, processing_class=tokenizer).train_dataset
    for text, row in zip(texts, trained, strict=True):
        for side in ("chosen", "rejected"):
            whole = tokenizer.decode([*row["prompt_ids"], *row[f"{side}_ids"]])
            assert (text["prompt"] + text[side]).strip() == whole.strip()


def test_rows_that_a_template_cannot_render_are_counted(tokenizer: Any, tmp_path: Path) -> None:
    for family, reason in (("phi3_5", "call_lost"), ("deepseekv3", "not_rendered")):
        tokenizer.chat_template = _template(family)
        tokenizer.save_pretrained(tmp_path / family)
        target = DatasetSettings(formats=["oumi"], render=str(tmp_path / family)).target()
        written = write_dataset(tmp_path / "out", {SplitName.TRAIN: _rows()}, Provenance(0, {}, {}), target)
        assert written.refused["rows_oumi"] == {reason: 2}
