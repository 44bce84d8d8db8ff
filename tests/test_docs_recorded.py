"""docs/recorded_candidates.md: every example is in the format under whose name it stands, and holds a candidate."""

import re
from pathlib import Path

import pytest

from nat_dpo_pipeline.core.candidates import RefusalReason
from nat_dpo_pipeline.records.formats import RECORDED_FORMATS
from nat_dpo_pipeline.records.values import RecordedFormat
from tests.records.helpers import read

PAGE = (Path(__file__).parents[1] / "docs" / "recorded_candidates.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n### ")[1:]}


@pytest.mark.parametrize("known", RECORDED_FORMATS, ids=lambda known: known.name)
def test_each_format_has_an_example_that_is_read(known: RecordedFormat, tmp_path: Path) -> None:
    name = known.name
    blocks = re.findall(r"```(\w*)\n(.*?)```", SECTIONS[name], re.DOTALL)
    (example,) = (text for language, text in blocks if language in ("json", "csv", ""))
    (tmp_path / "example").write_text(example, encoding="utf-8")
    found = read(tmp_path / "example")
    assert found.formats == [name]
    if name == "ATIF trajectories":
        assert found.refused == {"missing_score": 1}
    elif "score table" not in name:
        assert found.files.candidates >= 1
        assert not found.refused


def test_every_reason_is_explained() -> None:
    refused = PAGE.split("\n## What is refused")[1]
    assert not [str(reason) for reason in RefusalReason if f"`{reason}`" not in refused]
