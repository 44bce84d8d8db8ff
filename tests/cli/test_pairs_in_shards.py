"""`nat dpo pairs` gives the same pairs in memory and in shards."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from nat_dpo_pipeline.cli import dpo, pairs
from nat_dpo_pipeline.cli.pairs import bytes_of, engine_for
from nat_dpo_pipeline.errors import ConfigurationError, InputError
from nat_dpo_pipeline.pairing.options import EngineName


def _row(example: int, response: object, score: object, **others: object) -> dict[str, Any]:
    own = {"example_id": f"e{example}", "turn_id": "t", "prompt": f"What is {example}?"}
    return {**own, "response": response, "score": score, **others}


def _flat_rows() -> list[dict[str, Any]]:
    rows = [
        _row(one, f"{one} {place} {'long ' * place}", (place * 7 + one) % 5) for one in range(60) for place in range(5)
    ]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    answered = [*asked, {"role": "assistant", "content": "So."}]
    calling = [*asked, {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}]
    return [
        *rows,
        *(_row(100, text, 1.0) for text in ("same", "same ", "other")),
        _row(100, "better", 2.5),
        *(_row(101, f"answer {score}", score) for score in (None, float("nan"), "2.5", 1, True, "x")),
        _row(102, "So.", 3.0, prompt=answered),
        _row(102, "Because.", 1.0, prompt=asked),
        _row(103, "no text", 1.0, prompt=calling),
        _row(104, " ", 2.0),
        _row(104, "cut", 1.0, metadata={"flaw": "truncated"}),
        _row(104, "whole", None, metadata=[1]),
        _row(104, "also whole", 0.25, metadata={"topic": "x"}),
        _row(105, "ä \u2028 é", 1.0, run_id="r1"),
        _row(105, "ö", 2.0, run_id="r2"),
        _row(105, "ü", 3.0, run_id="r2"),
        _row(106, "a", 1.0, turn_id=None),
        *(_row(107, text, 1.0 + rank, example_id=one) for one in (1.0, 2.0, 3) for rank, text in enumerate("ab")),
        *(_row(108, text, 1.0 + rank, turn_id=one) for one in (True, [1]) for rank, text in enumerate("ab")),
        *(_row(109, text, 1.0, **{name: "\ud800"}) for name in ("run_id", "example_id", "turn_id") for text in "ab"),
    ]


def _turn_rows() -> list[dict[str, Any]]:
    pair = [
        {"response": "good", "score": 2.0},
        {"response": "bad", "score": 1.0},
        {"response": "unscored", "score": None},
    ]
    return [
        {"example_id": "x1", "turn_id": "q", "prompt": "Turn?", "candidates": pair},
        {
            "example_id": "x2",
            "turn_id": "q",
            "prompt": "Aside?",
            "candidates": pair,
            "set_aside": "below_min_best_score",
        },
    ]


@pytest.fixture
def recorded(tmp_path: Path) -> list[str]:
    """Rows with all that can be wrong with them, and rows of whole turns."""
    flat, turns = tmp_path / "flat.jsonl.gz", tmp_path / "turns.jsonl"
    flat.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in _flat_rows()).encode()))
    turns.write_text("".join(json.dumps(row) + "\n" for row in _turn_rows()))
    return [str(flat), str(turns)]


def test_a_uri_is_written_to(recorded: list[str], tmp_path: Path) -> None:
    done = _pairs(recorded[1], "-o", (tmp_path / "out").as_uri())
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "manifest.json").is_file()


def _pairs(*words: object) -> Result:
    return CliRunner().invoke(dpo, ["pairs", *map(str, words)])


def _side(folder: Path, side: str, name: str = "trl") -> list[str]:
    return sorted(line for path in (folder / name).glob(f"{side}*.jsonl") for line in path.read_text().splitlines())


def _counts(folder: Path) -> tuple[Any, Any]:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return manifest["skipped"]["pairs"], {
        name: manifest["counts"][name] for name in ("train_pairs", "validation_pairs")
    }


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"strategy": "best_vs_random", "seed": 3},
        {"strategy": "best_vs_second", "min_score_diff": 1.5, "length_penalty": 20.0},
        {"max_pairs_per_turn": 2, "pair_flawed": True, "max_length_ratio": 3.0},
        {"min_margin_quantile": 0.4, "max_prompts_per_chosen": 1, "drop_contradictions": True, "length_balance": 0.5},
    ],
)
def test_shards_hold_what_memory_makes(tmp_path: Path, recorded: list[str], rules: dict[str, Any]) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    told = {}
    for engine in ("memory", "local"):
        out = tmp_path / engine
        done = _pairs(*recorded, "-o", out, "--engine", engine, "--rules", tmp_path / "rules.yml", "--workers", 2)
        assert done.exit_code == 0, done.output
        told[engine] = done.output
    for side in ("train", "validation"):
        assert _side(tmp_path / "memory", side) == _side(tmp_path / "local", side)
    assert _side(tmp_path / "memory", "train")
    assert _counts(tmp_path / "memory") == _counts(tmp_path / "local")
    recorded_counts = json.loads((tmp_path / "memory" / "manifest.json").read_bytes())["configuration"]["recorded"]
    refused: dict[str, int] = {}
    for file in recorded_counts:
        for reason, count in file["refused"].items():
            refused[reason] = refused.get(reason, 0) + count
    in_shards = json.loads((tmp_path / "local" / "manifest.json").read_bytes())["skipped"]["candidates"]
    assert refused == in_shards
    assert {
        "set_aside",
        "prompt_ends_with_assistant",
        "missing_score",
        "score_not_finite",
        "malformed",
        "missing_turn_id",
    } <= set(refused)


def test_what_is_large_or_far_away_goes_to_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "LARGE", 100)
    (tmp_path / "large.jsonl").write_text(json.dumps(_row(1, "a" * 100, 1.0)) + "\n")
    (tmp_path / "small.jsonl").write_text(json.dumps({"prompt": "p", "response": "r", "score": 1.0}) + "\n")
    large, small = str(tmp_path / "large.jsonl"), str(tmp_path / "small.jsonl")
    assert engine_for([large], "auto") is EngineName.LOCAL
    assert engine_for([small], "auto") is EngineName.MEMORY
    assert engine_for([str(tmp_path)], "auto") is EngineName.LOCAL
    assert engine_for(["s3://bucket/rows"], "auto") is EngineName.LOCAL
    assert engine_for([large], "memory") is EngineName.MEMORY
    assert engine_for([small], "ray") is EngineName.RAY
    with pytest.raises(InputError, match="there is no file"):
        engine_for([str(tmp_path / "gone.jsonl")], "auto")


def test_a_second_run_does_nothing_and_one_of_something_else_is_refused(tmp_path: Path, recorded: list[str]) -> None:
    command = (*recorded, "-o", tmp_path / "out", "--engine", "local", "--workers", 1)
    assert _pairs(*command).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jsonl")}
    assert _pairs(*command).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jsonl")} == before
    other = _pairs(*command, "--strategy", "best_vs_worst")
    assert other.exit_code == 1
    assert "overwrite" in other.output
    assert _pairs(*command, "--strategy", "best_vs_worst", "--overwrite").exit_code == 0


def test_every_rule_is_for_shards_too(tmp_path: Path) -> None:
    rows = [_row(one, text, 1.0 + rank, subtopic=f"s{one % 3}") for one in range(30) for rank, text in enumerate("ab")]
    rows += [_row(one, "alone", one, subtopic="s0") for one in range(30, 50)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "nat.yml").write_text(
        yaml.safe_dump(
            {
                "workflow": {"_type": "chat_completion", "llm_name": "none"},
                "trajectory_builders": {"b": {"_type": "dpo_traj_builder", "require_multiple_candidates": False}},
                "trainer_adapters": {
                    "a": {
                        "_type": "dataset_trainer_adapter",
                        "output_dir": "x",
                        "stratify": True,
                        "single_label_score": 40,
                        "formats": ["trl", "kto"],
                    }
                },
            }
        )
    )
    for engine in ("memory", "local"):
        done = _pairs(
            tmp_path / "rows.jsonl", "-o", tmp_path / engine, "--engine", engine, "--rules", tmp_path / "nat.yml"
        )
        assert done.exit_code == 0, done.output
    for name in ("trl", "kto"):
        for side in ("train", "validation"):
            one, other = (_side(tmp_path / engine, side, name) for engine in ("memory", "local"))
            assert one == other
    kto = [json.loads(line) for side in ("train", "validation") for line in _side(tmp_path / "local", side, "kto")]
    assert [row["label"] for row in kto].count(True) == 30 + 10
    held_out = {str(json.loads(line)["prompt"]) for line in _side(tmp_path / "local", "validation", "kto")}
    assert len(held_out) == 5


def test_how_much_may_be_unreadable_is_said(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(_row(1, text, score)) + "\n" for score, text in enumerate("ab")) + "{cut")
    command = (rows, "-o", tmp_path / "out", "--engine", "local", "--workers", 1)
    refused = _pairs(*command)
    assert refused.exit_code == 1
    assert "1 of 3 rows cannot be read" in refused.output
    assert _pairs(*command, "--max-bad-share", 0.5).exit_code == 0
    assert "--max-bad-share" in _pairs(*command, "--max-bad-share", 2).output


def test_memory_is_said_in_units() -> None:
    assert [bytes_of(text) for text in ("1000", "2K", "512M", "4G", "4GiB", "1t")] == [
        1000,
        2048,
        512 << 20,
        4 << 30,
        4 << 30,
        1 << 40,
    ]
    for text in ("", "G", "4 G", "-1G", "4X", "1.5G"):
        with pytest.raises(ConfigurationError, match="--memory must be like 4G or 512M"):
            bytes_of(text)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([_row(question, f"{place}", 1.0) for question in range(3) for place in range(2)], "3 tie"),
        ([_row(question, "a", 1.0) for question in range(3)], "every candidate is alone in its turn"),
    ],
)
def test_a_run_without_a_pair_says_why_in_one_line(tmp_path: Path, rows: list[dict[str, Any]], why: str) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = _pairs(tmp_path / "rows.jsonl", "-o", tmp_path / "out", "--engine", "local", "--workers", 1)
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == f"Error: no pair was made of {len(rows)} candidates: {why}"


def test_a_run_that_finds_its_turns_scattered_goes_on(tmp_path: Path) -> None:
    rows = [_row(question, f"{place}", place) for place in range(3) for question in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = _pairs(tmp_path / "rows.jsonl", "-o", tmp_path / "out", "--engine", "local", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert "candidates          9" in done.output
