"""`nat finetune` with `openai_trainer_adapter`, as a user starts it, against a server on this machine."""

import json
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import NAT, Command, Done, environment, started
from tests.servers.fine_tuning import KEY, After, FineTuningServer, metrics_event, serving

ROOT = Path(__file__).parents[1]
MODEL = "gpt-4.1-mini-2025-04-14"
CREATE = "POST /fine_tuning/jobs"


@pytest.fixture
def server() -> Iterator[FineTuningServer]:
    with serving(FineTuningServer()) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, server: FineTuningServer) -> Path:
    """The configuration that is shipped, for another address and in less of a hurry, and rows for it."""
    source = yaml.safe_load((ROOT / "configs" / "train_openai.yml").read_text())
    source["trainer_adapters"]["openai"] |= {"base_url": server.url, "poll_interval": 0.05}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(source))
    rows = [
        {"id": str(n), "prompt": f"Why {n}?", "candidates": [{"response": str(m), "score": m} for m in range(3)]}
        for n in range(10)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def _start(place: Path) -> AbstractContextManager[Command]:
    command = (NAT, "finetune", "--config_file", "config.yml", "--dataset", "rows.jsonl")
    return started(place, *command, env=environment(OPENAI_API_KEY=KEY))


def _finetune(place: Path) -> Done:
    with _start(place) as running:
        return running.end()


def _metrics(place: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((place / "runs" / "train_openai" / "run" / "final_metrics.json").read_text())
    return metrics


def test_pairs_become_a_model_although_the_reply_to_the_job_gets_lost(place: Path, server: FineTuningServer) -> None:
    server.faults[CREATE].append(After.LOST_CONNECTION)
    server.events = [metrics_event(5, 20, train_loss=0.5)]
    done = _finetune(place)
    assert done.code == 0, done.said
    assert "Traceback" not in done.said
    assert KEY not in done.said
    assert len(server.created) == server.asked(CREATE) == 1
    request = server.created[0]
    assert (request["model"], request["suffix"]) == (MODEL, "preferred")
    prompts = [{row["input"]["messages"][0]["content"] for row in server.rows(number)} for number in (0, 1)]
    assert (len(server.rows(0)), len(server.rows(1))) == (27, 3)
    assert prompts[0].isdisjoint(prompts[1])
    assert "openai job ftjob-0: running 25 %, Step 5/20" in done.said
    assert f"openai job ftjob-0: succeeded 100 %, ft:{MODEL}:mine" in done.said
    metrics = _metrics(place)
    assert metrics["status"] == "completed"
    assert metrics["job"]["job_id"] == "ftjob-0"
    assert KEY not in json.dumps(metrics)


def test_a_job_that_fails_is_told_in_the_last_line(place: Path, server: FineTuningServer) -> None:
    server.states = ["validating_files", "failed"]
    server.job_error = {
        "code": "invalid_n_examples",
        "message": "Training file has 27 examples",
        "param": "training_file",
    }
    done = _finetune(place)
    assert done.code != 0
    last = done.last_line()
    assert last.startswith("Error: training job ")
    assert last.endswith("failed: invalid_n_examples: Training file has 27 examples (training_file)")
    assert "Traceback" not in done.said
    assert _metrics(place)["status"] == "failed"


def test_a_wrong_key_is_told_before_anything_is_generated(place: Path, server: FineTuningServer) -> None:
    source = yaml.safe_load((place / "config.yml").read_text())
    source["trainer_adapters"]["openai"]["api_key"] = "sk-wrong"
    (place / "config.yml").write_text(yaml.safe_dump(source))
    done = _finetune(place)
    assert done.code != 0
    last = done.last_line()
    assert "answered 401 when asked for its jobs: Incorrect API key provided: *** (check its api_key)" in last
    assert "sk-wrong" not in done.said
    assert "Running workflow" not in done.said
    assert server.files == {}


def test_ctrl_c_cancels_the_job(place: Path, server: FineTuningServer) -> None:
    server.states = ["running"]
    with _start(place) as running:
        running.wait_until(lambda: "openai job ftjob-0: running" in running.said)
        running.process.send_signal(signal.SIGINT)
        done = running.end()
    assert done.code == 1
    assert server.jobs["ftjob-0"]["status"] == "cancelled", done.said
    assert "interrupted: cancelling the job; once more ends at once" in done.logs
    assert done.last_line() == "Error: interrupted: job ftjob-0 was cancelled"
    assert "Traceback" not in done.said
    assert _metrics(place)["status"] == "canceled"
