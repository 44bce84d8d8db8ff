"""The command in this process, on a run of the embedded demo model."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from nat_dpo_pipeline.cli import dpo

ROOT = Path(__file__).parents[2]


def _dpo(*arguments: str) -> Result:
    return CliRunner().invoke(dpo, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run, and what `generate` said."""
    folder = tmp_path_factory.mktemp("report")
    source = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    source["workflow"] |= {"n_subtopics": 2, "n_questions": 3}
    (folder / "config.yml").write_text(yaml.safe_dump(source))
    options = ("--config_file", str(folder / "config.yml"), "--topic", "Text", "-o", str(folder / "run"))
    done = _dpo("generate", *options)
    assert done.exit_code == 0, done.output
    return folder / "run", done.stdout


@pytest.fixture
def run_dir(generated: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(generated[0], tmp_path / "run"))


def test_generate_writes_the_report_and_tells_where(generated: tuple[Path, str]) -> None:
    run, said = generated
    assert f"Report: {run / 'report.html'}" in said.splitlines()[-1]
    report = json.loads((run / "report.json").read_bytes())
    dataset = json.loads((run / "dataset" / "manifest.json").read_bytes())
    left_out = dataset["skipped"].get("pairs", {})
    by_the_trainer = {name: left_out.pop(name, 0) for name in ("duplicate_pairs", "over_max_pairs")}
    assert report["flow"]["left_out"] == left_out
    assert report["flow"]["pairs"] == sum(dataset["counts"].values()) + sum(by_the_trainer.values())


def test_the_same_run_gives_the_same_report(run_dir: Path) -> None:
    before = {name: (run_dir / name).read_bytes() for name in ("report.html", "report.json")}
    done = _dpo("report", str(run_dir))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"Report: {run_dir / 'report.html'}")
    assert {name: (run_dir / name).read_bytes() for name in before} == before


def test_it_goes_where_it_is_asked_to(run_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "page.html"
    assert _dpo("report", str(run_dir), "-o", str(target)).exit_code == 0
    assert target.is_file()
    assert target.with_suffix(".json").is_file()


def test_text_is_a_table_and_writes_nothing(run_dir: Path) -> None:
    for name in ("report.html", "report.json"):
        (run_dir / name).unlink()
    done = _dpo("report", str(run_dir), "--text")
    assert done.exit_code == 0, done.output
    for part in ("From responses to pairs", "possible pairs", "Spread", "Models", "Subtopics", "Requests", "Warnings"):
        assert part in done.stdout
    assert not (run_dir / "report.html").exists()


def test_text_with_an_output_is_refused(run_dir: Path) -> None:
    done = _dpo("report", str(run_dir), "--text", "-o", "page.html")
    assert done.exit_code == 2
    assert "--text writes nothing" in done.stderr


def test_a_name_cannot_write_to_the_terminal(run_dir: Path) -> None:
    rows = [json.loads(line) for line in (run_dir / "candidates.jsonl").read_text().splitlines()]
    for row in rows:
        row["subtopic"] = "\x1b[31mred\x07"
    (run_dir / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = _dpo("report", str(run_dir), "--text")
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    assert "[31mred" in done.stdout


def test_rules_of_the_whole_run_are_applied_again(run_dir: Path) -> None:
    path = run_dir / "dataset" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    before = json.loads((run_dir / "report.json").read_bytes())["flow"]
    manifest["configuration"]["trajectory_builder"] |= {"min_margin_quantile": 0.5, "strategy": "exhaustive"}
    path.write_text(json.dumps(manifest))
    assert _dpo("report", str(run_dir)).exit_code == 0
    flow = json.loads((run_dir / "report.json").read_bytes())["flow"]
    assert flow["possible_pairs"] == before["possible_pairs"]
    assert flow["left_out"]["below_min_margin_quantile"] == before["pairs"] - flow["pairs"] > 0


@pytest.mark.parametrize("arguments", [(), ("--text",)])
def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = _dpo("report", str(tmp_path), *arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert "has no candidates.jsonl" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_of_a_training_the_page_has_its_curves(tmp_path: Path) -> None:
    result = {"sentence": "learned: 0.50 → 0.90", "figures": {"held_out_pairs": 40}, "model": {"base": "tiny"}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.69}\n')
    told = _dpo("report", str(tmp_path), "--text")
    assert told.stdout.splitlines() == [
        "tiny: learned: 0.50 → 0.90",
        "",
        "Measured",
        "  held out pairs  40",
        "",
        "Data",
        "  nothing",
    ]
    assert _dpo("report", str(tmp_path)).stdout == f"Report: {tmp_path / 'report.html'}\n"
    assert "chart-loss" in (tmp_path / "report.html").read_text()


def test_a_manifest_with_an_unknown_builder_is_one_line(run_dir: Path) -> None:
    path = run_dir / "dataset" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["configuration"]["trajectory_builder"] = {"min_score_dif": 1}
    path.write_text(json.dumps(manifest))
    done = _dpo("report", str(run_dir))
    assert done.exit_code == 1
    assert "trajectory_builder" in done.stderr


def test_without_pairing_the_default_rules_show_what_there_would_be(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "dataset")
    assert _dpo("report", str(run_dir)).exit_code == 0
    report = json.loads((run_dir / "report.json").read_bytes())
    assert report["flow"]["pairs"] > 0
    assert report["run"]["train_pairs"] is None
