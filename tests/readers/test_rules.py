"""Readers that are too large to install for a test: what their code and documentation demand of a row and a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.messages import Message, as_messages
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset

Row = Mapping[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, awkward: Any) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    odd = [
        PreferenceRow((Message("user", "a"), Message("user", "b")), "c", "d"),
        PreferenceRow((Message("critic", "a"), Message("user", "b")), "c", "d"),
    ]
    splits = {SplitName.TRAIN: [*awkward.rows, *odd]}
    target = Target(("openai", "llama_factory", "axolotl", "nemo_rl", "helpsteer3", "helix"))
    written = write_dataset(folder, splits, Provenance(0, {}, {}), target)
    assert written.refused == {
        "rows_openai": {"unknown_role": 1},
        "rows_axolotl": {"unknown_role": 1},
        "rows_llama_factory": {"roles_do_not_alternate": 1, "unknown_role": 1},
    }
    return folder


def _rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _openai_problem(row: Row) -> str | None:
    """developers.openai.com, guide on direct preference optimization, and the API's FineTunePreferenceRequestInput."""
    if row.keys() != {"input", "preferred_output", "non_preferred_output"}:
        return "keys"
    messages = row["input"]["messages"]
    if not messages or messages[-1]["role"] != "user":
        return "input"
    for output in (row["preferred_output"], row["non_preferred_output"]):
        if len(output) != 1 or output[0]["role"] != "assistant" or not isinstance(output[0]["content"], str):
            return "output"
    return None if isinstance(row["input"]["parallel_tool_calls"], bool) and row["input"]["tools"] == [] else "tools"


def test_openai(folder: Path) -> None:
    rows = _rows(folder / "openai" / "training.jsonl")
    assert len(rows) == 6
    assert {_openai_problem(row) for row in rows} == {None}


def _llama_factory(row: Row, info: Row) -> tuple[list[tuple[str, str]], list[str]] | None:
    """SharegptDatasetConverter in hiyouga/LLaMA-Factory, src/llamafactory/data/converter.py; None: skipped."""
    columns = info["columns"]
    messages = row[columns["messages"]]
    if messages and messages[0]["from"] == "system":
        messages = messages[1:]
    accepted = (("human", "observation"), ("gpt", "function_call"))
    if any(message["from"] not in accepted[place % 2] for place, message in enumerate(messages)):
        return None
    if len(messages) % 2 == 0:
        return None
    sides = [row[columns[side]] for side in ("chosen", "rejected")]
    assert all(isinstance(side, dict) and side["from"] in accepted[1] for side in sides)
    return [(message["from"], message["value"]) for message in messages], [side["value"] for side in sides]


def test_llama_factory(folder: Path, awkward: Any) -> None:
    info = json.loads((folder / "llama_factory" / "dataset_info.json").read_bytes())
    assert {name: (folder / "llama_factory" / one["file_name"]).is_file() for name, one in info.items()} == {
        "preferences_train": True,
        "preferences_validation": True,
    }
    train = info["preferences_train"]
    assert (train["formatting"], train["ranking"]) == ("sharegpt", True)
    read = [_llama_factory(row, train) for row in _rows(folder / "llama_factory" / train["file_name"])]
    assert [answers for _, answers in filter(None, read)] == [[row.chosen, row.rejected] for row in awkward.rows]


def _axolotl(row: Row) -> tuple[list[dict[str, str]], str, str]:
    """`default` in axolotl-ai-cloud/axolotl, src/axolotl/prompt_strategies/dpo/chat_template.py."""
    roles = {"user": "user", "assistant": "assistant", "system": "system", "tool": "tool"}
    messages = [{"role": roles[one["role"]], "content": one["content"]} for one in row["messages"]]
    assert {roles[row[side]["role"]] for side in ("chosen", "rejected")} == {"assistant"}
    return messages, row["chosen"]["content"], row["rejected"]["content"]


def test_axolotl(folder: Path, awkward: Any) -> None:
    rows = [_axolotl(row) for row in _rows(folder / "axolotl" / "train.jsonl")]
    assert rows[:5] == [(as_messages(row.prompt), row.chosen, row.rejected) for row in awkward.rows]


def test_nemo_rl(folder: Path, awkward: Any) -> None:
    """NVIDIA-NeMo/RL, docs/guides/dpo.md: two completions of one response, the lowest rank is preferred."""
    for row, expected in zip(_rows(folder / "nemo_rl" / "train.jsonl"), awkward.rows, strict=False):
        ranked = sorted(row["completions"], key=lambda one: one["rank"])
        assert [one["rank"] for one in ranked] == [0, 1]
        assert [one["completion"] for one in ranked] == [
            [{"role": "assistant", "content": text}] for text in (expected.chosen, expected.rejected)
        ]
        assert row["context"] == as_messages(expected.prompt)


def test_helpsteer3(folder: Path, awkward: Any) -> None:
    """NVIDIA-NeMo/RL, nemo_rl/data/datasets/preference_datasets/helpsteer3.py: below 0 the first one is better."""
    rows = _rows(folder / "helpsteer3" / "training.jsonl")
    for row, expected in zip(rows, awkward.rows, strict=False):
        sides = (row["response1"], row["response2"])
        assert (sides if row["overall_preference"] < 0 else sides[::-1]) == (expected.chosen, expected.rejected)
    assert {row["overall_preference"] for row in rows} == {-2, 2}, "the better one is not always in one place"


def test_helix_has_one_type_a_column(folder: Path) -> None:
    """It takes the schema from the first line."""
    rows = _rows(folder / "helix" / "training.jsonl")
    assert {tuple(type(row[key]) for key in ("prompt", "chosen", "rejected")) for row in rows} == {(list, str, str)}
