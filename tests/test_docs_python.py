"""docs/python.md: its code runs as it stands there, and what it makes is what TRL's trainer for DPO asks for."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"What is {number}?,It is {rank}.,{rank}" for number in range(100) for rank in range(3)]
    (tmp_path / "answers.csv").write_text("\n".join(["question,answer,rating", *rows]))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    names: dict[str, Any] = {}
    exec(code, names)
    dataset = names["dataset"]
    assert set(dataset) == {"train", "validation"}
    assert dataset.num_rows["train"] + dataset.num_rows["validation"] == 300
    # What TRL calls conversational (its documentation, dataset formats).
    row = dataset["train"][0]
    assert row["prompt"] == [{"role": "user", "content": "What is 0?"}]
    assert [message["role"] for side in ("chosen", "rejected") for message in row[side]] == ["assistant"] * 2
