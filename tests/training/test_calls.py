"""Training on rows with tool calls. Runs where trl is installed: `make training`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs torch and trl: make training")

from transformers import AutoTokenizer

from nat_dpo_pipeline.core.messages import Message, ToolCall, reply_of
from nat_dpo_pipeline.core.rendering import with_tools
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.writer import Provenance, write_dataset
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.trainers.trl.control import Parent, Reporter, StopSignal
from nat_dpo_pipeline.trainers.trl.job import JobFolder, TrlJob
from nat_dpo_pipeline.trainers.trl.settings import TINY, Device, Precision, TrlSettings
from nat_dpo_pipeline.trainers.trl.tiny import make_tiny_model
from nat_dpo_pipeline.trainers.trl.training import Surroundings, train

pytestmark = pytest.mark.filterwarnings("ignore")
CITIES = ("Oslo", "Bergen", "Narvik", "Hamar", "Molde", "Bodo", "Voss", "Skien", "Moss", "Halden", "Floro", "Larvik")
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("weather", "climate")
]


def _call(name: str, **arguments: Any) -> str:
    return reply_of(Message("assistant", "", (ToolCall(name, json.dumps(arguments), "call00001"),)))


def _rows() -> list[PreferenceRow]:
    rows = []
    for city in CITIES:
        prompt = with_tools(f"Is it cold in {city} today?", TOOLS)
        rows.append(PreferenceRow(prompt, _call("weather", city=city), _call("climate", years=30), 1.0, 0.0, city, "t"))
        rows.append(PreferenceRow(f"Is {city} a town?", "Yes.", "No idea at all.", 1.0, 0.0, city, "u"))
    return rows


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., tuple[JobFolder, Mapping[str, float]]]:
    def run(model: str = TINY) -> tuple[JobFolder, Mapping[str, float]]:
        folder = JobFolder(tmp_path / "job")
        rows = _rows()
        splits = {SplitName.TRAIN: rows[:16], SplitName.VALIDATION: rows[16:]}
        write_dataset(folder.dataset, splits, Provenance(0, {}, {}))
        settings = TrlSettings(
            output_dir=tmp_path,
            model=model,
            epochs=3,
            learning_rate=2e-3,
            max_length=512,
            device=Device.CPU,
            precision=Precision.FP32,
        )
        _, found = train(TrlJob("run", 0, settings), Surroundings(folder, Reporter(folder), StopSignal(), Parent(None)))
        return folder, found

    return run


def test_it_learns_calls_and_texts_and_says_both(trained: Callable[..., Any]) -> None:
    _, found = trained()
    assert found["held_out_accuracy_on_calls_after"] == 1.0
    assert found["held_out_accuracy_on_texts_after"] == 1.0
    assert found["held_out_margin_after"] > found["held_out_margin_before"]


def test_a_template_that_drops_calls_ends_before_the_first_step(trained: Callable[..., Any], tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": "a"}],
            **{side: [{"role": "assistant", "content": "b"}] for side in ("chosen", "rejected")},
        }
    ]
    make_tiny_model(tmp_path / "model", rows, 0, lambda: None)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigurationError, match=r"drops or garbles calls of tools, such as that of 'weather'"):
        trained(model=str(tmp_path / "model"))
