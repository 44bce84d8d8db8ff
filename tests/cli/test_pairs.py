"""`nat dpo pairs`, and what can be done with the folder that it makes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.core.split import is_held_out


def _rows(questions: Iterable[int], scores: Iterable[float | None] = (3.0, 2.0, 1.0)) -> list[dict[str, Any]]:
    return [
        {"example_id": f"e{one}", "turn_id": "t", "prompt": f"q{one}", "response": f"q{one} {place}", "score": score}
        for one in questions
        for place, score in enumerate(scores)
    ]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Forty turns of three candidates, and one candidate that is none."""
    return _write(tmp_path / "rows.jsonl", [*_rows(range(40)), *_rows([40], [None])])


def _write(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _pairs(*words: object) -> Result:
    return CliRunner().invoke(dpo, ["pairs", *map(str, words)])


def _dataset(folder: Path) -> dict[str, list[dict[str, Any]]]:
    sides = ("train", "validation")
    return {
        side: [json.loads(line) for line in (folder / "trl" / f"{side}.jsonl").read_text().splitlines()]
        for side in sides
    }


def _prompts(rows: list[dict[str, Any]]) -> set[str]:
    return {row["prompt"][0]["content"] for row in rows}


def test_a_broken_file_of_rules_is_named_and_not_quoted(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text("llms:\n  judge: {api_key: sk-planted, [\n")
    done = _pairs(recorded, "-o", tmp_path / "out", "--rules", tmp_path / "rules.yml")
    assert done.exit_code == 1
    assert "rules.yml', line 3 cannot be read as YAML: " in done.output
    assert "sk-planted" not in done.output


def test_recorded_candidates_become_a_dataset(recorded: Path, tmp_path: Path) -> None:
    done = _pairs(recorded, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert f"{recorded}: flat candidate rows, 120 candidates, refused 1 missing_score\n" in done.output
    assert f"\n    {recorded}:121: missing_score\n" in done.output
    assert "  candidates        120\n  turns              40\n  pairs             120  (" in done.output
    sides = _dataset(tmp_path / "out")
    assert sum(map(len, sides.values())) == 120
    assert not _prompts(sides["train"]) & _prompts(sides["validation"])
    assert _prompts(sides["validation"]) == {f"q{one}" for one in range(40) if is_held_out(f"q{one}", 0.1, 0)}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    (file,) = manifest["configuration"]["recorded"]
    assert (file["format"], file["candidates"], file["refused"]) == ("flat candidate rows", 120, {"missing_score": 1})
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- Recorded candidates: `rows.jsonl`, flat candidate rows\n" in card
    assert "recorded elsewhere" in card
    assert "The answers are synthetic" not in card
    # Nothing is left of the candidates on their way.
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".lock",
        "README.md",
        "candidates.jsonl",
        "manifest.json",
        "trl",
    ]


def test_of_many_refusals_the_first_are_told(tmp_path: Path) -> None:
    rows = _write(tmp_path / "rows.jsonl", [*_rows([0]), *_rows(range(7), [None])])
    lines = _pairs(rows, "-o", tmp_path / "out").output.splitlines()
    assert [line for line in lines if line.startswith("    ")] == [
        *(f"    {rows}:{line}: missing_score" for line in range(4, 9)),
        "    and 2 more",
    ]


def test_a_prompt_stays_on_its_side_when_others_come(recorded: Path, tmp_path: Path) -> None:
    more = _write(tmp_path / "more.jsonl", _rows(range(41, 80)))
    assert _pairs(recorded, "-o", tmp_path / "one", "--validation-fraction", 0.3, "--seed", 5).exit_code == 0
    assert _pairs(more, recorded, "-o", tmp_path / "two", "--validation-fraction", 0.3, "--seed", 5).exit_code == 0
    few, many = (_dataset(tmp_path / name) for name in ("one", "two"))
    assert _prompts(few["validation"]) < _prompts(many["validation"])
    assert _prompts(few["train"]) < _prompts(many["train"])


def test_report_export_and_inspect_take_the_folder(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert _pairs(recorded, "-o", out, "--strategy", "best_vs_worst").exit_code == 0
    run = CliRunner().invoke
    told = run(dpo, ["report", str(out), "--text"])
    assert told.exit_code == 0, told.output
    assert "out: complete" in told.output
    assert "possible pairs        120  left out: 80 not best vs worst" in told.output
    assert run(dpo, ["report", str(out)]).exit_code == 0
    assert (out / "report.html").is_file()
    again = run(dpo, ["export", str(out), "-f", "hh", "-o", str(tmp_path / "hh")])
    assert again.exit_code == 0, again.output
    assert "pairs left out: 80 not best vs worst" in again.output
    looked = run(dpo, ["inspect", str(out)])
    assert looked.exit_code == 0, looked.output
    assert "candidates.jsonl" not in looked.output


def test_rules_come_from_a_file_and_the_command_line(recorded: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("exhaustive_pairs: false\nmin_score_diff: 5.0\nsource: [nothing]\n")
    assert _pairs(recorded, "-o", tmp_path / "none", "--rules", rules).exit_code == 1
    words = ("--strategy", "adjacent", "--min-score-diff", 1)
    done = _pairs(recorded, "-o", tmp_path / "out", "--rules", rules, *words)
    assert "pairs              80  (" in done.output


def test_rules_may_be_a_whole_configuration(recorded: Path, tmp_path: Path) -> None:
    config = {
        "workflow": {"_type": "scored_candidates"},
        "trajectory_builders": {
            "pairs": {"_type": "dpo_traj_builder", "strategy": "best_vs_second", "source": str(recorded)}
        },
        "trainers": {"trainer": {"_type": "dpo_trainer", "validation_fraction": 0.0}},
        "trainer_adapters": {"dataset": {"_type": "dataset_trainer_adapter", "output_dir": "x", "formats": ["hh"]}},
        "finetuning": {"trainer": "trainer", "trajectory_builder": "pairs", "trainer_adapter": "dataset"},
    }
    rules = tmp_path / "config.yml"
    rules.write_text(yaml.safe_dump(config))
    # The files of `source` are read when none are named.
    done = _pairs("-o", tmp_path / "out", "--rules", rules)
    assert done.exit_code == 0, done.output
    assert "pairs              40  (40 train, 0 validation)" in done.output
    assert (tmp_path / "out" / "hh" / "train.jsonl").is_file()
    assert "no pair is in" not in done.output
    rules.write_text(yaml.safe_dump(config | {"trajectory_builders": {}}))
    assert (
        "has no trajectory builder of this package" in _pairs(recorded, "-o", tmp_path / "x", "--rules", rules).output
    )


def test_the_only_trainer_of_a_configuration_counts_though_fine_tuning_names_none(
    recorded: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yml").write_text(
        yaml.safe_dump(
            {
                "workflow": {"_type": "scored_candidates"},
                "trajectory_builders": {"pairs": {"_type": "dpo_traj_builder"}},
                "trainers": {"trainer": {"_type": "dpo_trainer", "validation_fraction": 0, "max_pairs": 7}},
            }
        )
    )
    assert _pairs(recorded, "-o", tmp_path / "out", "--rules", tmp_path / "config.yml").exit_code == 0
    assert {side: len(rows) for side, rows in _dataset(tmp_path / "out").items()} == {"train": 7, "validation": 0}


def test_an_empty_side_is_told(tmp_path: Path) -> None:
    rows = _write(tmp_path / "rows.jsonl", _rows([0]))
    done = _pairs(rows, "-o", tmp_path / "out", "--seed", 0)
    assert "no pair is in validation: each prompt's side follows from its text" in done.output


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        (_rows([1], [1.0, 1.0]), (), "no pair was made of 2 candidates: 1 tie"),
        (_rows([1], [1.0]), (), "no pair was made of 1 candidates: every candidate is alone in its turn"),
        (
            [
                {
                    "prompt": "q",
                    "example_id": "e",
                    "candidates": [{"response": r, "score": s} for r, s in (("a", 1), ("b", 2))],
                    "turn_id": "\ud800",
                }
            ],
            (),
            "no pair was made of 0 candidates: 2 invalid_unicode",
        ),
        (_rows([1], [None]), (), "no pair was made of 0 candidates: 1 missing_score"),
        (_rows([1]), ("-f", "steerlm"), "no row was made of 3 pairs: steerlm: 3 no attributes"),
        ([{"a": 1}], (), "holds no recorded candidates: it starts with an object with the keys 'a'"),
        (_rows([1]), ("--strategy", "bests"), "strategy is 'bests'"),
        (_rows([1]), ("--validation-fraction", 1), "validation_fraction is 1.0"),
        (_rows([1]), ("-f", "nothing"), "there is no format 'nothing'"),
        (_rows([1]), ("--rules", __file__), "cannot be read"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    tmp_path: Path, rows: list[dict[str, Any]], words: tuple[object, ...], said: str
) -> None:
    done = _pairs(_write(tmp_path / "rows.jsonl", rows), "-o", tmp_path / "out", *words)
    assert done.exit_code == 1
    error = done.output.rpartition("Error: ")[2]
    assert said in error
    assert error.count("\n") == 1


def test_ignored_options_of_shards_are_named(recorded: Path, tmp_path: Path) -> None:
    done = _pairs(recorded, "-o", tmp_path / "out", "--workers", 2, "--overwrite")
    assert done.exit_code == 0
    assert done.stderr == "--workers, --overwrite: ignored, as one process pairs these files (--engine)\n"
    assert _pairs(recorded, "-o", tmp_path / "out").stderr == ""


def test_without_files_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert "name files of recorded candidates" in _pairs("-o", tmp_path / "out").output
    assert "name files of recorded candidates" in _pairs("", "-o", tmp_path / "out").output
    assert "there is no file" in _pairs("none*", "-o", tmp_path / "out").output


def test_candidates_of_somebody_else_are_not_replaced(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "candidates.jsonl").write_text("mine")
    assert "is of no dataset of this package" in _pairs(recorded, "-o", tmp_path / "out").output
    assert (tmp_path / "out" / "candidates.jsonl").read_text() == "mine"
    (tmp_path / "out" / "candidates.jsonl").write_bytes(recorded.read_bytes())
    assert _pairs(tmp_path / "out" / "candidates.jsonl", "-o", tmp_path / "out", "--engine", "local").exit_code == 0
    assert "is of no dataset of this package" in _pairs(recorded, "-o", tmp_path / "out").output
    assert (tmp_path / "out" / "candidates.jsonl").read_bytes() == recorded.read_bytes()


def test_a_dataset_whose_writing_was_killed_is_written_anew(recorded: Path, tmp_path: Path) -> None:
    _pairs(recorded, "-o", tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    assert _pairs(recorded, "-o", tmp_path / "out").exit_code == 0


def test_the_command_can_be_repeated_on_what_it_left(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _pairs(recorded, "-o", out)
    first = _dataset(out)
    done = _pairs(out / "candidates.jsonl", "-o", out)
    assert done.exit_code == 0, done.output
    assert _dataset(out) == first


def test_a_folder_that_is_input_and_output_can_be_paired_again(recorded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    recorded.rename(folder / "rows.jsonl")
    told = [_pairs(given, "-o", folder).output for given in (folder, folder, f"{folder}/*.jsonl")]
    assert "candidates        120\n" in told[0]
    assert told[1:] == told[:1] * 2
