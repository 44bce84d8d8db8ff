from dataclasses import replace
from pathlib import Path

import pytest

from nat_dpo_pipeline.cli import summaries
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.dataset.formats import PreferenceRow, SplitName
from nat_dpo_pipeline.dataset.writer import Provenance, Target, WrittenDataset, write_dataset
from nat_dpo_pipeline.pairing.options import PairedFiles


@pytest.mark.parametrize(
    ("cost", "told"), [(None, "-"), (0.0, "0.00"), (0.01234, "0.0123"), (1.005, "1.00"), (12345.6, "12,345.60")]
)
def test_money(cost: float | None, told: str) -> None:
    assert summaries.money(cost) == told


def test_no_rows_are_no_lines() -> None:
    assert summaries.columns([], left=1) == []


def test_columns_begin_left_and_end_right() -> None:
    rows = [("step", "", "calls"), ("rewards", "x", "1"), ("a", "long", "1,000")]
    assert summaries.columns(rows, left=2) == [
        "  step           calls",
        "  rewards  x         1",
        "  a        long  1,000",
    ]


def _dataset(folder: Path, *formats: str) -> WrittenDataset:
    rows = [PreferenceRow(f"Why {n}?", "Because.", "No.") for n in range(9)]
    rows.append(PreferenceRow((Message("system", "Be brief."), Message("user", "Why?")), "Because.", "No."))
    splits = {SplitName.TRAIN: rows[:-1], SplitName.VALIDATION: rows[-1:]}
    return write_dataset(folder, splits, Provenance(0, {}, {}), Target(formats))


def test_pairs_are_told_by_side_whatever_the_first_format_holds() -> None:
    result = PairedFiles(
        folder="out",
        manifest="out/manifest.json",
        files=(),
        pairs={SplitName.TRAIN: 9, SplitName.VALIDATION: 1},
        candidates=20,
        turns=10,
        skipped={"below_min_score_diff": 3, "tie": 5},
        refused={},
        left_out={"hh": {"system_prompt": 1}},
    )
    assert summaries.pairs_of(result) == [
        "  pairs              10  (9 train, 1 validation)",
        "  pairs left out: 5 tie, 3 below min score diff",
        "  left out of hh: 1 system prompt",
    ]
    assert len(summaries.pairs_of(replace(result, skipped={}, left_out={}))) == 1
