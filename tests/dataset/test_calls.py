"""Rows with tool calls hold what their trainers take, or say why they are left out."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import TOOLS, Message, Prompt, ToolCall, message_of, reply_of, tools_of
from nat_dpo_pipeline.core.rendering import with_tools
from nat_dpo_pipeline.dataset.formats import FORMATS, PreferenceRow, SplitName, UnpairedRow
from nat_dpo_pipeline.dataset.formats.format import RowRefusal, TurnRows, plain
from nat_dpo_pipeline.dataset.formats.reading import read, recognised
from nat_dpo_pipeline.dataset.inspecting import inspect
from nat_dpo_pipeline.dataset.writer import Provenance, Target, write_dataset

BY_NAME = {one.name: one for one in FORMATS}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
JSON_CALL: Any = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
RESULT = {"role": "tool", "content": "3", "tool_call_id": "call00001", "name": "weather"}


def _call(city: str = "Oslo") -> ToolCall:
    return ToolCall("weather", json.dumps({"city": city}), "call00001")


def _called(city: str = "Oslo", content: str = "", reasoning: str | None = None) -> str:
    return reply_of(Message("assistant", content, (_call(city),), reasoning=reasoning))


ASKED: Prompt = with_tools("Cold?", [WEATHER])
ANSWERED: Prompt = (
    *(one for one in ASKED if isinstance(one, Message)),
    Message("assistant", "", (_call(),)),
    Message("tool", "3", tool_call_id="call00001", name="weather"),
)


TEXT_ONLY = [name for name, one in BY_NAME.items() if not one.takes_calls]
BROKEN = reply_of(Message("assistant", "", (ToolCall("weather", "{", "call00001"),)))


def _made(name: str, *rows: PreferenceRow | UnpairedRow) -> list[Any]:
    return list(BY_NAME[name].rows_of(TurnRows.of(rows), plain))


def test_trl_rows_have_calls_as_objects_and_tools_as_text() -> None:
    (row,) = _made("trl", PreferenceRow(ASKED, _called(), _called("Bergen")))
    assert row["chosen"] == [{"role": "assistant", "content": "", "tool_calls": [JSON_CALL]}]
    assert json.loads(row["tools"]) == [WEATHER]
    assert row["prompt"] == [{"role": "user", "content": "Cold?"}]
    (row,) = _made("trl", PreferenceRow(ANSWERED, "Rather.", "No."))
    assert row["prompt"][1:] == [{"role": "assistant", "content": "", "tool_calls": [JSON_CALL]}, RESULT]


def test_ms_swift_replaces_everything_after_the_last_user_message() -> None:
    (row,) = _made("ms_swift", PreferenceRow(ANSWERED, "Rather.", "No."))
    assert [one["role"] for one in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert row["rejected_response"] == [*row["messages"][1:3], {"role": "assistant", "content": "No."}]
    (row,) = _made("ms_swift", PreferenceRow(ASKED, "Rather.", _called()))
    assert row["rejected_response"] == [{"role": "assistant", "content": "", "tool_calls": [JSON_CALL]}]


def test_llama_factory_has_calls_and_observations_as_turns() -> None:
    (row,) = _made("llama_factory", PreferenceRow(ANSWERED, _called("Bergen"), "No."))
    assert [one["from"] for one in row["conversations"]] == ["human", "function_call", "observation"]
    assert row["chosen"] == {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Bergen"}}'}
    assert json.loads(row["tools"]) == [WEATHER]
    both = reply_of(Message("assistant", "", (_call(), _call("Bergen"))))
    (row,) = _made("llama_factory", PreferenceRow(ASKED, both, "No."))
    assert [one["arguments"]["city"] for one in json.loads(row["chosen"]["value"])] == ["Oslo", "Bergen"]


def test_openai_has_calls_in_the_prompt_as_its_api_takes_them() -> None:
    (row,) = _made("openai", PreferenceRow(ANSWERED, "Rather.", "No."))
    (called,) = row["input"]["messages"][1]["tool_calls"]
    assert json.loads(called["function"]["arguments"]) == {"city": "Oslo"}
    assert row["input"]["tools"] == [WEATHER]
    assert _made("openai", PreferenceRow(ASKED, _called(), "No.")) == [RowRefusal.CALL_IN_ANSWER]


def test_kto_rows_have_calls_and_tools() -> None:
    for row in _made("kto", PreferenceRow(ASKED, _called(), "No.")) + _made("kto", UnpairedRow(ASKED, _called(), True)):
        assert json.loads(row["tools"]) == [WEATHER]
        assert row["completion"][0].get("tool_calls", [JSON_CALL]) == [JSON_CALL]


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        *((name, PreferenceRow(ASKED, "Yes.", "No."), "tool_calls") for name in TEXT_ONLY),
        ("helix", PreferenceRow("Cold?", _called(), "No."), "tool_calls"),
        ("openrlhf", PreferenceRow(ASKED, "Yes.", "No."), "tools_on_offer"),
        ("llama_factory", PreferenceRow(ASKED, _called(content="Let me see."), "No."), "text_beside_call"),
        ("trl", PreferenceRow(ASKED, BROKEN, "No."), "arguments_not_an_object"),
    ],
)
def test_what_a_trainer_does_not_take_is_left_out_with_a_reason(name: str, row: PreferenceRow, reason: str) -> None:
    assert _made(name, row) == [reason]
    # The rows of the turn without calls stay.
    rows = _made(name, row, PreferenceRow("Cold?", "Yes.", "No."))
    assert rows[0] == reason
    assert not isinstance(rows[-1], RowRefusal) or rows[-1] == RowRefusal.NO_ATTRIBUTES


def test_thoughts_are_written_where_both_sides_have_them() -> None:
    (row,) = _made("trl", PreferenceRow("Cold?", _called(reasoning="Hm."), _called("Bergen", reasoning="So.")))
    assert [row[side][0]["reasoning_content"] for side in ("chosen", "rejected")] == ["Hm.", "So."]
    (row,) = _made("helix", PreferenceRow("Cold?", reply_of(Message("assistant", "Yes.", reasoning="Hm.")), "No."))
    assert json.loads(json.dumps(row))["chosen"] == "Yes."


cities = st.text(st.characters(codec="utf-8"), max_size=5)
replies = cities.map(_called) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)


@given(st.sampled_from([ASKED, ANSWERED]), replies, replies)
def test_calls_come_back_from_every_format_that_takes_them(prompt: Prompt, chosen: str, rejected: str) -> None:
    row = PreferenceRow(prompt, chosen, rejected)
    for name, one in BY_NAME.items():
        for made in one.rows_of(TurnRows([row]), plain):
            if isinstance(made, RowRefusal) or name == "kto":
                continue
            written = json.loads(json.dumps(made))
            assert recognised(written) == name
            found = read(name, written)
            for reply, again in zip((chosen, rejected), found.answers, strict=True):
                assert (message_of(again).tool_calls, message_of(again).content) == (
                    message_of(reply).tool_calls,
                    message_of(reply).content,
                )
            assert tools_of(found.prompt) == [WEATHER]
            said = [message for message in found.prompt if isinstance(message, Message) and message.role != TOOLS]
            assert [(m.role, m.content, m.tool_calls) for m in said] == [
                (m.role, m.content, m.tool_calls) for m in prompt if isinstance(m, Message) and m.role != TOOLS
            ]


def test_in_parquet_no_call_gets_the_keys_of_another(tmp_path: Path) -> None:
    other = reply_of(Message("assistant", "", (ToolCall("climate", '{"years": 30, "place": null}', "call00001"),)))
    rows = [PreferenceRow(ASKED, _called(), other, 2.0, 1.0, "e", "t"), PreferenceRow("Cold?", "Yes.", "No.")]
    written = write_dataset(tmp_path, {SplitName.TRAIN: rows}, Provenance(0, {}, {}), Target(("trl",), parquet=True))
    assert written
    (file,) = tmp_path.rglob("train.parquet")
    found = pyarrow.parquet.read_table(file).to_pylist()
    lines = [json.loads(line) for line in file.with_suffix(".jsonl").read_bytes().splitlines()]
    for row, line in zip(found, lines, strict=True):
        for name in ("prompt", "chosen", "rejected"):
            assert [json.loads(one) for one in row[name]] == line[name]
        assert row["tools"] == line.get("tools")
    (report,) = inspect([file])
    assert report.is_fit
