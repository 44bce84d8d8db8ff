import json
from pathlib import Path
from typing import Any

import pytest

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.trainers.nemo.rows import usable, write_files

HISTORY = (
    Message("system", "Be brief."),
    Message("user", "Why?"),
    Message("assistant", "What?"),
    Message("user", "Why tea?"),
)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (PreferenceRow("Why?", "same", " same "), "identical_responses"),
        (PreferenceRow("Why?", "", "No."), "blank_response"),
        (PreferenceRow("Why?", "So.", " \n"), "blank_response"),
        (PreferenceRow("", "So.", "No."), "empty_prompt"),
        (PreferenceRow((), "So.", "No."), "empty_prompt"),
        (PreferenceRow((Message("user", " "),), "So.", "No."), "empty_prompt"),
    ],
)
def test_a_pair_that_teaches_nothing_is_left_out(row: PreferenceRow, reason: str) -> None:
    good = PreferenceRow("Why?", "So.", "No.")
    assert usable([row, good]) == ([good], {reason: 1})


def test_a_pair_in_both_directions_is_left_out_in_both() -> None:
    one, other = PreferenceRow("Why?", "A", "B"), PreferenceRow("Why?", "B", "A")
    elsewhere = PreferenceRow("What?", "B", "A")
    assert usable([one, other, elsewhere]) == ([elsewhere], {"contradicted": 2})


def _written(folder: Path, *rows: PreferenceRow, training_type: str = "dpo", full_history: bool = True) -> list[Any]:
    files, _ = write_files(folder, {SplitName.TRAIN: rows}, training_type=training_type, full_history=full_history)
    assert files.keys() == {SplitName.TRAIN}, "a side without rows gets no file"
    return [json.loads(line) for line in (folder / "training_file.jsonl").read_text().splitlines()]


def test_the_whole_history_is_kept(tmp_path: Path) -> None:
    rows = _written(tmp_path, PreferenceRow(HISTORY, "So.", "No."), PreferenceRow("Why?", "So.", "No."))
    messages = [{"role": message.role, "content": message.content} for message in HISTORY]
    assert rows == [
        {"prompt": messages, "chosen_response": "So.", "rejected_response": "No."},
        {"prompt": [{"role": "user", "content": "Why?"}], "chosen_response": "So.", "rejected_response": "No."},
    ]


def test_only_the_last_message_is_kept_when_asked(tmp_path: Path) -> None:
    rows = _written(
        tmp_path, PreferenceRow(HISTORY, "So.", "No."), PreferenceRow("Why?", "So.", "No."), full_history=False
    )
    assert [row["prompt"] for row in rows] == ["Why tea?", "Why?"]


def test_sft_gets_the_unbeaten_answers_once_as_conversations(tmp_path: Path) -> None:
    pairs = [PreferenceRow("Why?", *texts, turn_id="t") for texts in (("A", "B"), ("A", "C"), ("B", "C"))]
    assert _written(tmp_path, *pairs, training_type="sft") == [
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "A"}]}
    ]
    assert _written(tmp_path, *pairs, training_type="sft", full_history=False) == [
        {"prompt": "Why?", "completion": "A"}
    ]


def test_a_text_that_cannot_be_written_is_counted(tmp_path: Path) -> None:
    rows = [PreferenceRow("Why?", "half \ud83d", "No."), PreferenceRow("What?", "So.", "No.")]
    files, left_out = write_files(tmp_path, {SplitName.TRAIN: rows}, training_type="dpo", full_history=True)
    assert (files[SplitName.TRAIN].rows, left_out) == (1, {"invalid_unicode": 1})
