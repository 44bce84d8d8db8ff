"""Rows, frames and files from Python give the pairs of the command, and what is none is one line."""

import json
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pytest
from click.testing import CliRunner
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import nat_dpo_pipeline as dpo
from nat_dpo_pipeline.cli import dpo as command
from tests.pairing.candidates import make_rows, write_jsonl

ANSWERS = [
    {"question": f"What is {number}?", "answer": f"It is {rank}.", "rating": float(rank), "topic": f"t{number % 2}"}
    for number in range(20)
    for rank in range(3)
]
NAMES = {"prompt": "question", "response": "answer", "score": "rating"}


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.none() | st.integers(1, 30), st.sampled_from(["exhaustive", "best_vs_second"]))
def test_rows_give_the_pairs_of_the_command(
    tmp_path_factory: pytest.TempPathFactory, seed: int, max_pairs: int | None, strategy: str
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    rows = make_rows(30, seed)
    pairs = dpo.pair(rows, strategy=strategy, seed=seed, max_pairs=max_pairs)
    write_jsonl(folder / "rows.jsonl", rows)
    (folder / "nat.yml").write_text(
        json.dumps(
            {
                "workflow": {"_type": "chat_completion", "llm_name": "none"},
                "trajectory_builders": {"b": {"_type": "dpo_traj_builder", "strategy": strategy, "seed": seed}},
                "trainers": {"t": {"_type": "dpo_trainer", "max_pairs": max_pairs, "seed": seed}},
                "finetuning": {"trainer": "t", "trajectory_builder": "b"},
            }
        )
    )
    words = ["pairs", str(folder / "rows.jsonl"), "-o", str(folder / "out"), "--rules", str(folder / "nat.yml")]
    done = CliRunner().invoke(command, words)
    if not len(pairs):
        assert done.exit_code == 1
        return
    assert done.exit_code == 0, done.output
    for side in ("train", "validation"):
        written = (folder / "out" / "trl" / f"{side}.jsonl").read_text().splitlines()
        assert getattr(pairs, side) == list(map(json.loads, written))


def test_every_kind_of_table_gives_the_same(tmp_path: Path) -> None:
    frame = pandas.DataFrame(ANSWERS)
    sources: list[Any] = [ANSWERS, iter(ANSWERS), frame, pyarrow.table(frame), Dataset.from_list(ANSWERS)]
    expected = dpo.pair(ANSWERS, **NAMES, strategy="best_vs_worst")
    assert (len(expected), expected.result.candidates) == (20, 60)
    for source in sources:
        found = dpo.pair(source, **NAMES, strategy="best_vs_worst")
        assert list(found) == list(expected), type(source)
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "p", "response": f"{n}", "score": n} for n in range(3)])
    assert len(dpo.pair(path)) == len(dpo.pair([str(path)])) == 3


def test_groups_keep_equal_prompts_apart() -> None:
    rows = [{**row, "question": "Why?"} for row in ANSWERS]
    assert dpo.pair(rows, **NAMES).result.turns == 1
    assert dpo.pair(rows, **NAMES, group="topic").result.turns == 2


def test_pairs_become_tables_and_files_again(tmp_path: Path) -> None:
    pairs = dpo.pair(ANSWERS, **NAMES, validation_fraction=0.3, seed=1)
    assert repr(pairs) == f"<60 pairs ({len(pairs.train)} train, {len(pairs.validation)} validation) of 60 candidates>"
    frame = pairs.to_pandas()
    assert frame["split"].tolist() == ["train"] * len(pairs.train) + ["validation"] * len(pairs.validation)
    assert pairs.to_arrow().num_rows == 60
    datasets = pairs.to_datasets()
    assert {side: datasets[side].to_list() for side in datasets} == {
        "train": pairs.train,
        "validation": pairs.validation,
    }
    written = pairs.write(tmp_path / "out", ["hh", "kto"], title="Tea")
    assert written.pairs == pairs.result.pairs
    assert "pretty_name: Tea" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "candidates.jsonl").exists()
    alone = dpo.pair(ANSWERS, **NAMES, validation_fraction=0)
    assert (list(alone.to_datasets()), alone.validation) == (["train"], [])


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        (5, {}, "no rows in int: give rows, a frame, a table, a Dataset, or a path"),
        ([1], {}, "a row must be a mapping, got int: 1"),
        (ANSWERS, {"prompt": "asked"}, "has no column 'asked' for prompt; it has 'question'"),
        (pandas.DataFrame(ANSWERS), {"score": "stars"}, "has no column 'stars' for score; it has 'question'"),
        ([{**ANSWERS[0], "query": "p"}], {}, "two columns that could be the prompt, 'question' and 'query'"),
        (ANSWERS, {**NAMES, "stategy": "x"}, "no 'stategy'; did you mean 'strategy'"),
        (ANSWERS, {**NAMES, "validation_fraction": 2}, "validation_fraction is 2"),
        ("gone.jsonl", {}, "there is no file 'gone.jsonl'"),
    ],
)
def test_what_cannot_be_paired_is_one_line(source: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(dpo.DPOPipelineError, match=said):
        dpo.pair(source, **more)


def test_usual_names_are_known_and_others_are_mapped() -> None:
    expected = list(dpo.pair(ANSWERS, **NAMES))
    assert list(dpo.pair(pandas.DataFrame(ANSWERS))) == expected
    names = {old: f"my.{old}" for old in ANSWERS[0]}
    renamed = [{names[name]: value for name, value in row.items()} for row in ANSWERS]
    columns = {role: names[name] for role, name in NAMES.items()}
    assert [row["chosen"] for row in dpo.pair(renamed, map=columns)] == [row["chosen"] for row in expected]
