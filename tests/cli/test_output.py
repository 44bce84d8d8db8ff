"""A command that ends with an error leaves nothing in its output folder, or what was there before."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.cli.output import nothing_left_on_error
from nat_dpo_pipeline.pairing.run import STATE


def _write(path: Path, scores: Iterable[object]) -> Path:
    rows = [
        {"example_id": f"e{one}", "turn_id": "t", "prompt": f"q{one}", "response": f"{rank}", "score": score}
        for one in range(4)
        for rank, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _fails(*words: object) -> None:
    done = CliRunner().invoke(dpo, [str(word) for word in words])
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("Error: ")


@pytest.mark.parametrize("engine", ["memory", "local"])
@pytest.mark.parametrize("scores", [(1.0, 1.0), ("x", "y")], ids=["ties", "no candidates"])
def test_no_pair_leaves_no_folder(tmp_path: Path, engine: str, scores: tuple[object, ...]) -> None:
    _fails("pairs", _write(tmp_path / "rows.jsonl", scores), "-o", tmp_path / "out", "--engine", engine)
    assert not (tmp_path / "out").exists()


def test_no_pair_leaves_an_older_dataset_in_its_place(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(dpo, ["pairs", str(_write(tmp_path / "good.jsonl", (2.0, 1.0))), "-o", str(out)])
    assert done.exit_code == 0, done.output
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    _fails("pairs", _write(tmp_path / "ties.jsonl", (1.0, 1.0)), "-o", out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_an_unknown_file_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    _fails("pairs", tmp_path / "rows.jsonl", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_without_a_match_leaves_no_folder(tmp_path: Path) -> None:
    steps = [{"source": "user", "message": "Hi"}, {"source": "agent", "message": "Hello"}]
    (tmp_path / "run.json").write_text(json.dumps({"schema_version": "ATIF-v1.7", "session_id": "a", "steps": steps}))
    (tmp_path / "scores.csv").write_text("id,score\nb,1\n")
    _fails("pairs", tmp_path / "run.json", tmp_path / "scores.csv", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_without_a_pair_leaves_what_was_in_the_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = CliRunner().invoke(dpo, ["pairs", str(_write(tmp_path / "rows.jsonl", (2.0, 1.0))), "-o", str(run)])
    assert done.exit_code == 0, done.output
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["configuration"]["trajectory_builder"]["min_score_diff"] = 5.0
    (run / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    _fails("export", run, "-f", "hh", "-o", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def _begin(folder: Path, ends_with: type[BaseException]) -> None:
    (folder / "trl").mkdir(parents=True)
    (folder / "trl" / "train.jsonl").touch()
    raise ends_with


def _failing(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), nothing_left_on_error(folder):
        _begin(folder, ZeroDivisionError)


def test_the_folder_of_a_dataset_is_the_writers(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    _failing(tmp_path)
    assert (tmp_path / "trl" / "train.jsonl").exists()


def test_an_unfinished_run_in_shards_can_go_on(tmp_path: Path) -> None:
    (tmp_path / STATE).mkdir()
    _failing(tmp_path)
    assert (tmp_path / "trl" / "train.jsonl").exists()


def test_an_interruption_removes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), nothing_left_on_error(tmp_path):
        _begin(tmp_path, KeyboardInterrupt)
    assert (tmp_path / "trl" / "train.jsonl").exists()
