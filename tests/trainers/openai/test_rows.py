import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat_dpo_pipeline.core.messages import Message, prompt_key
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.errors import TrainingError
from nat_dpo_pipeline.trainers.openai.rows import RowFiles, write_row_files

ROLES = ("system", "developer", "user", "assistant", "tool")
SHORT = st.text(st.characters(exclude_categories=()), max_size=3)
PROMPTS = SHORT | st.lists(st.builds(Message, st.sampled_from(ROLES), SHORT), max_size=3).map(tuple)
ROWS = st.lists(st.builds(PreferenceRow, PROMPTS, SHORT, SHORT), max_size=8)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def _key(row: Mapping[str, Any]) -> str:
    return prompt_key(tuple(Message(**message) for message in row["input"]["messages"]))


@given(train=ROWS, validation=ROWS)
def test_whatever_is_sent_is_what_the_api_takes(train: list[PreferenceRow], validation: list[PreferenceRow]) -> None:
    splits = {SplitName.TRAIN: train, SplitName.VALIDATION: validation}
    with TemporaryDirectory() as folder:
        files = write_row_files(splits, Path(folder), min_rows=0)
        rows = {side: _read(path) for side, path in files.paths.items()}
    assert {side: len(found) for side, found in rows.items()} == files.rows
    assert all(rows.values()), "an empty file is not sent"
    assert sum(files.rows.values()) + sum(files.refused.values()) == len(train) + len(validation)
    prompts = {side: {_key(row) for row in found} for side, found in rows.items()}
    assert not prompts.get(SplitName.TRAIN, set()) & prompts.get(SplitName.VALIDATION, set())
    for row in (row for found in rows.values() for row in found):
        assert row["input"]["messages"]
        answers = [row["preferred_output"], row["non_preferred_output"]]
        assert [[message["role"] for message in answer] for answer in answers] == [["assistant"]] * 2
        first, second = (answer[0]["content"].strip() for answer in answers)
        assert first
        assert second
        assert first != second


def _written(folder: Path, **limits: int) -> RowFiles:
    rows = [PreferenceRow(f"question {n}", "good", "bad") for n in range(10)]
    return write_row_files({SplitName.TRAIN: rows}, folder, min_rows=10, **limits)


def test_a_file_that_is_too_large_is_not_sent(tmp_path: Path) -> None:
    size = _written(tmp_path).paths[SplitName.TRAIN].stat().st_size
    assert _written(tmp_path, max_bytes=size).rows == {SplitName.TRAIN: 10}
    with pytest.raises(
        TrainingError, match=r"the train file has 0\.0 MB, and .* MB is what the API takes: lower max_pairs"
    ):
        _written(tmp_path, max_bytes=size - 1)
