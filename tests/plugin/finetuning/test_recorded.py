"""The trajectory builder over files instead of an evaluation."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from nat.data_models.finetuning import FinetuneConfig

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.errors import CollectionError, InputError
from nat_dpo_pipeline.plugin import recorded
from nat_dpo_pipeline.plugin.finetuning.trajectory_builder import DPOTrajectoryBuilder
from nat_dpo_pipeline.plugin.finetuning_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.plugin.recorded import collect_recorded
from nat_dpo_pipeline.report.summary import describe, total
from tests.commands import run_nat


def _write(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _turn(name: str, *scores: object) -> dict[str, Any]:
    candidates = [{"response": f"{name} {place}", "score": score} for place, score in enumerate(scores)]
    return {"example_id": name, "turn_id": "t", "prompt": f"What is {name}?", "candidates": candidates}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return _write(tmp_path / "rows.jsonl", [_turn("a", 1.0, 2.0, 3.0), _turn("b", 1.0, 1.0, None), _turn("c", 5.0)])


async def _builder(run_config: FinetuneConfig, **settings: object) -> DPOTrajectoryBuilder:
    builder = DPOTrajectoryBuilder(DPOTrajectoryBuilderConfig.model_validate(settings))
    await builder.initialize(run_config)
    return builder


async def test_files_are_paired_as_an_evaluation_is(
    run_config: FinetuneConfig, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rollouts = [{"prompt": "Why?", "response": text, "reward": len(text)} for text in ("no", "yes")]
    _write(tmp_path / "more-1.rows", rollouts)
    builder = await _builder(
        run_config, source=[str(source), str(tmp_path / "more-*")], require_multiple_candidates=False
    )
    caplog.set_level("INFO")
    await builder.start_run("run")
    collection = await builder.finalize("run")
    assert [[one.metadata["score_diff"] for one in group] for group in collection.trajectories] == [[2, 1, 1], [1]]
    report = builder.reports["run"]
    assert (report.candidates, report.turns, report.pairs, report.skipped) == (8, 4, 4, {"tie": 1})
    assert report.refused == {"missing_score": 1}
    assert [(file.format, file.candidates) for file in report.files] == [("turn rows", 6), ("rollout rows", 2)]
    assert [one.response for one in collection.singles] == ["c 0"]
    read = f"read                  {source}: turn rows, 6 candidates, refused 1 missing_score"
    assert describe(report)[0] == read
    assert read in caplog.text
    assert total([report, report]).files == report.files * 2
    (failure,) = map(json.loads, (Path(run_config.output_dir) / "failures_run.jsonl").read_text().splitlines())
    assert failure == {"file": str(source), "line": 2, "reason": "missing_score"}
    builder.log_progress("run", {})
    entry = Path(run_config.output_dir) / "dpo_trajectory_builder_run.jsonl"
    assert json.loads(entry.read_text())["collected"]["files"][0]["refused"] == {"missing_score": 1}


async def test_selection_sees_all_files(run_config: FinetuneConfig, tmp_path: Path) -> None:
    rows = [_turn("a", 1.0, 2.0), _turn("b", 1.0, 9.0), _turn("c", 1.0, 4.0)]
    for place, row in enumerate(rows):
        _write(tmp_path / f"{place}.jsonl", [row])
    builder = await _builder(run_config, source=str(tmp_path / "?.jsonl"), min_margin_quantile=0.6)
    await builder.start_run("run")
    collection = await builder.finalize("run")
    assert [one.metadata["example_id"] for group in collection.trajectories for one in group] == ["b", "c"]
    assert builder.reports["run"].skipped == {"below_min_margin_quantile": 1}


async def test_a_file_that_is_not_there_is_told_before_anything_is_done(
    run_config: FinetuneConfig, tmp_path: Path
) -> None:
    builder = await _builder(run_config, source=[str(tmp_path / "none.jsonl")])
    with pytest.raises(InputError, match=r"there is no file .*none\.jsonl'"):
        await builder.start_run("run")


async def test_a_file_of_no_known_format_fails_the_run_in_one_line(run_config: FinetuneConfig, tmp_path: Path) -> None:
    builder = await _builder(run_config, source=str(_write(tmp_path / "rows", [{"a": 1}])))
    await builder.start_run("run")
    with pytest.raises(CollectionError, match=r"reading the source of run 'run' failed: .*rows' holds no recorded"):
        await builder.finalize("run")


async def test_reading_that_is_cancelled_ends_at_the_next_record(
    run_config: FinetuneConfig, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[BaseException] = []
    begun = Event()

    def watched(*arguments: Any) -> object:
        begun.set()
        arguments[-1].wait()
        try:
            return collect_recorded(*arguments)
        except InputError as error:
            ended.append(error)
            raise

    monkeypatch.setattr(recorded, "collect_recorded", watched)
    builder = await _builder(run_config, source=str(source))
    await builder.start_run("run")
    await asyncio.to_thread(begun.wait)
    builder.evaluation_runs["run"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await builder.finalize("run")
    await asyncio.get_running_loop().shutdown_default_executor()
    assert [str(error) for error in ended] == ["reading was stopped"]


async def test_without_candidates_the_files_are_counted(
    run_config: FinetuneConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builder = await _builder(run_config, source=str(_write(tmp_path / "rows", [_turn("a", None)])))
    await builder.start_run("run")
    assert not (await builder.finalize("run")).trajectories
    assert "run run collected no candidates from 1 files" in caplog.text


@pytest.mark.parametrize("given", [[], 5, [1]])
def test_a_source_is_one_file_or_several(given: object) -> None:
    with pytest.raises(ValueError, match="source"):
        DPOTrajectoryBuilderConfig.model_validate({"source": given})


def _finetune(folder: Path, source: str) -> None:
    config = {
        "workflow": {"_type": "scored_candidates"},
        "trajectory_builders": {"pairs": {"_type": "dpo_traj_builder", "source": source}},
        "trainers": {"trainer": {"_type": "dpo_trainer"}},
        "trainer_adapters": {"dataset": {"_type": "dataset_trainer_adapter", "output_dir": "dataset"}},
        "finetuning": {
            "enabled": True,
            "trainer": "trainer",
            "trajectory_builder": "pairs",
            "trainer_adapter": "dataset",
            "output_dir": "run",
        },
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    done = run_nat(folder, "finetune", "--config_file", "config.yml")
    assert done.code == 0, done.logs


def test_nat_finetune_holds_out_the_prompts_that_pairs_does(tmp_path: Path) -> None:
    rows = [_turn(f"thing {number}", 1.0, 2.0) for number in range(40)]
    path = _write(tmp_path / "rows.jsonl", rows)
    _finetune(tmp_path, path.name)
    done = CliRunner().invoke(dpo, ["pairs", str(path), "-o", str(tmp_path / "pairs")])
    assert done.exit_code == 0, done.output
    for side in ("train", "validation"):
        made, paired = ((tmp_path / folder / "trl" / f"{side}.jsonl").read_text() for folder in ("dataset", "pairs"))
        assert made == paired
        assert made


def test_nat_finetune_needs_no_evaluation(source: Path, tmp_path: Path) -> None:
    _finetune(tmp_path, source.name)
    rows = [json.loads(line) for line in (tmp_path / "dataset" / "trl" / "train.jsonl").read_text().splitlines()]
    assert [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows] == [
        ("a 2", "a 0"),
        ("a 2", "a 1"),
        ("a 1", "a 0"),
    ]
    metrics = json.loads((tmp_path / "run" / "final_metrics.json").read_bytes())
    assert metrics["collected"]["files"][0]["format"] == "turn rows"
