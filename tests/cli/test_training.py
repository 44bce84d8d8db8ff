"""`nat dpo status` and `nat dpo resume` for jobs that another process submitted to a server on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from nat_dpo_pipeline.cli import dpo
from nat_dpo_pipeline.plugin.finetuning.saved_job import SavedJob
from nat_dpo_pipeline.plugin.finetuning_config import OpenAITrainerAdapterConfig
from nat_dpo_pipeline.plugin.nat_api import TrainingJobRef
from tests.servers.fine_tuning import KEY, FineTuningServer, metrics_event, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server() -> Iterator[FineTuningServer]:
    with serving(FineTuningServer()) as running:
        yield running


@pytest.fixture
def run_dir(tmp_path: Path, server: FineTuningServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder of a run whose process is gone."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    config = OpenAITrainerAdapterConfig(model="gpt", base_url=server.url, poll_interval=0.01)
    ref = TrainingJobRef(
        run_id="run", backend="openai", metadata={"job_id": server.add_job(metadata={"run_id": "run"})}
    )
    SavedJob.of(ref, config).write(tmp_path)
    (tmp_path / "final_metrics.json").write_text(json.dumps({"status": "canceled", "collected": {"pairs": 3}}))
    return tmp_path


def _dpo(*arguments: str) -> Result:
    return CliRunner().invoke(dpo, list(arguments), catch_exceptions=False)


def test_a_running_job_is_told_with_its_progress(run_dir: Path, server: FineTuningServer) -> None:
    server.states = ["running"]
    server.events = [metrics_event(5, 20, train_loss=0.5)]
    done = _dpo("status", str(run_dir))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("openai job ftjob-0: running 25 %")
    assert "train loss  0.5" in done.stdout


def test_a_job_that_failed_is_told_with_its_reason(run_dir: Path, server: FineTuningServer) -> None:
    server.states = ["failed"]
    server.job_error = {"code": "invalid_training_file", "message": "line 3 is none", "param": "training_file"}
    done = _dpo("status", str(run_dir))
    assert done.exit_code == 1
    assert "line 3 is none" in done.stdout


def test_a_wait_is_taken_up_again(run_dir: Path, server: FineTuningServer) -> None:
    server.states = ["running", "running", "succeeded"]
    done = _dpo("resume", str(run_dir))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("openai job ftjob-0: completed")
    metrics = json.loads((run_dir / "final_metrics.json").read_text())
    assert (metrics["status"], metrics["collected"]) == ("completed", {"pairs": 3})
    assert len(server.created) == 0


def test_a_job_that_cannot_go_on_is_one_line(run_dir: Path, server: FineTuningServer) -> None:
    server.states = ["cancelled"]
    done = _dpo("resume", str(run_dir))
    assert done.exit_code == 1
    assert done.stderr == "Error: job ftjob-0 has ended and cannot go on: submit a new one with nat finetune\n"


def test_the_configuration_may_hold_what_is_not_on_record(
    run_dir: Path, server: FineTuningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server.states = ["running"]
    source = yaml.safe_load((ROOT / "configs" / "train_openai.yml").read_text())
    source["trainer_adapters"]["openai"] |= {"base_url": server.url, "api_key": KEY}
    path = run_dir / "config.yml"
    path.write_text(yaml.safe_dump(source))
    assert _dpo("status", str(run_dir)).exit_code == 1
    assert _dpo("status", str(run_dir), "--config_file", str(path)).exit_code == 0
    path.write_text((ROOT / "configs" / "demo.yml").read_text())
    other = _dpo("status", str(run_dir), "--config_file", str(path))
    assert "does not train with openai_trainer_adapter, which submitted the job" in other.stderr


@pytest.mark.parametrize("command", ["status", "resume"])
def test_a_folder_without_a_job_is_one_line(tmp_path: Path, command: str) -> None:
    done = _dpo(command, str(tmp_path))
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
