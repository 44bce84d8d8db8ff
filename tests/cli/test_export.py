import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.dataset.formats import FORMATS

ALL = [one.name for one in FORMATS]


def _candidates(question: str, scores: list[float]) -> dict[str, Any]:
    return {
        "id": f"e/{question}",
        "example_id": "e",
        "turn_id": question,
        "topic": "t",
        "subtopic": "tea" if question < "q5" else "milk",
        "prompt": [{"role": "user", "content": question}],
        "candidates": [
            {
                "candidate_index": place,
                "response": f"{question} {place}",
                "score": score,
                "attributes": {"helpfulness": score},
                "model": "m",
                "llm": "writer",
            }
            for place, score in enumerate(scores)
        ],
        "unscored": [],
    }


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run folder whose builder and trainer are not the defaults."""
    folder = tmp_path / "run"
    folder.mkdir()
    rows = [_candidates(f"q{n}", [3.0, 2.0, 1.0]) for n in range(10)] + [_candidates("single", [4.0])]
    (folder / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    configuration = {
        "workflow": {"type": "preference_data"},
        "llms": {"writer": {"model_name": "m"}},
        "trajectory_builder": {"type": "dpo_traj_builder", "min_score_diff": 1.5, "require_multiple_candidates": False},
        "trainer": {"type": "dpo_trainer", "validation_fraction": 0.2, "seed": 3},
    }
    (folder / "manifest.json").write_text(json.dumps({"generator": "nat-dpo-pipeline", "configuration": configuration}))
    return folder


def _invoke(*words: object) -> Result:
    return CliRunner().invoke(dpo, [str(word) for word in words])


def _formats(*names: str) -> list[str]:
    return [word for name in names for word in ("--format", name)]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_exported_in_every_format_as_its_manifest_pairs(run_dir: Path, tmp_path: Path) -> None:
    done = _invoke("export", run_dir, *_formats(*ALL), "-o", tmp_path / "out", "--parquet", "--stratify")
    assert done.exit_code == 0, done.output
    assert "(8 train" in done.output
    assert "pairs left out: 20 below min score diff" in done.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert manifest["seed"] == 3
    assert manifest["counts"] == {"train_pairs": 8, "validation_pairs": 2}
    held_out = {row["prompt"][0]["content"] for row in _lines(tmp_path / "out" / "trl" / "validation.jsonl")}
    assert sorted(question < "q5" for question in held_out) == [False, True]
    inspected = _invoke("inspect", tmp_path / "out")
    # Nothing is to be said of kto's validation and the like: a small dataset has small files.
    assert "equal sides" not in inspected.output


def test_an_answer_that_is_alone_is_labelled_from_a_score_on(run_dir: Path, tmp_path: Path) -> None:
    for score, label in ((3.5, True), (4.5, False)):
        done = _invoke("export", run_dir, *_formats("kto"), "-o", tmp_path / "out", "--single-label-score", score)
        assert done.exit_code == 0, done.output
        rows = [row for side in ("train", "validation") for row in _lines(tmp_path / "out" / "kto" / f"{side}.jsonl")]
        assert [row["label"] for row in rows if row["prompt"][0]["content"] == "single"] == [label]
        assert len(rows) == 21


def test_without_a_score_to_label_from_it_is_left_out(run_dir: Path, tmp_path: Path) -> None:
    _invoke("export", run_dir, *_formats("kto"), "-o", tmp_path / "out")
    assert "single" not in "".join(path.read_text() for path in (tmp_path / "out" / "kto").glob("*.jsonl"))


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _no_candidates(folder: Path) -> None:
    (folder / "candidates.jsonl").unlink()


def _broken(folder: Path) -> None:
    (folder / "candidates.jsonl").write_bytes(b"\xff\n")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_no_manifest, "did the run end?"),
        (_no_candidates, "nat dpo generate"),
        (_broken, "holds no recorded"),
    ],
)
def test_what_is_no_run_folder_is_told_in_a_line(
    run_dir: Path, tmp_path: Path, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(run_dir)
    done = _invoke("export", run_dir, *_formats("trl"), "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert told in done.output
    assert "Traceback" not in done.output


def test_an_unknown_format_is_told_in_a_line(run_dir: Path, tmp_path: Path) -> None:
    done = _invoke("export", run_dir, *_formats("trll"), "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert done.output.startswith("Error: formats: there is no format 'trll'")
    assert len(done.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_no_pair_is_an_exit_code(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "candidates.jsonl").write_text(json.dumps(_candidates("q", [1.0, 1.0])) + "\n")
    assert _invoke("export", run_dir, *_formats("trl"), "-o", tmp_path / "out").exit_code == 1


def test_inspect_tells_what_it_finds(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    sound = _invoke("inspect", file)
    assert (sound.exit_code, sound.output) == (0, f"{file}: trl_standard, 1 rows, 1 prompts\nno problems found\n")
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n' * 7)
    bad = _invoke("inspect", file, "--max-chars", 10)
    assert bad.exit_code == 1
    assert "✗ 7 equal sides: chosen and rejected are the same" in bad.output
    assert "(line 1, 2, 3, 4, 5 and 2 more)" in bad.output
    assert "· 6 duplicate row" in bad.output
    file.unlink()
    assert _invoke("inspect", tmp_path).exit_code == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"a": 1, "b": 2},
            "the keys 'a', 'b'; a pair has 'prompt', 'chosen' and 'rejected', and docs/datasets.md has ",
        ),
        ({"prompt": "q", "response": "a", "score": 1}, "'score': flat candidate rows, of which `nat dpo pairs` makes "),
    ],
)
def test_inspect_says_what_an_unknown_file_holds(tmp_path: Path, row: dict[str, object], said: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(row)}\n" * 7)
    done = _invoke("inspect", file)
    assert done.exit_code == 1
    assert said in done.output
    assert done.output.splitlines()[1].endswith("(line 1, 2, 3, 4, 5 and 2 more)")


def test_inspect_tells_which_element_of_an_array_it_means(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text('[{"instruction": "a", "chosen": "b", "rejected": "b"}]')
    assert "(element 1)" in _invoke("inspect", file).output


def test_the_model_to_train_is_in_the_configurations_and_how_to_train_is_told(run_dir: Path, tmp_path: Path) -> None:
    done = _invoke("export", run_dir, *_formats("axolotl", "hh"), "-o", tmp_path / "out", "--model", "org/m")
    assert done.exit_code == 0, done.output
    assert "base_model: org/m\n" in (tmp_path / "out" / "axolotl" / "dpo.yaml").read_text()
    *_, where, how = done.output.splitlines()
    assert where == f"To train on it, in {tmp_path / 'out'}"
    assert how.split("  ")[1:] == ["axolotl", "axolotl train axolotl/dpo.yaml"]


def test_a_model_without_a_name_is_told_in_a_line(run_dir: Path, tmp_path: Path) -> None:
    done = _invoke("export", run_dir, *_formats("trl"), "-o", tmp_path / "out", "--model", "")
    assert done.exit_code == 1
    assert "model is ''" in done.output
    assert len(done.output.splitlines()) == 1
