"""The exporter under the real commands: with `nat eval`, `nat run`, `nat finetune` and `nat serve`."""

import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import NAT, environment, started
from tests.own_module import install, run_nat

_MODULE = """
import asyncio
import os

from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, register_function

from nat_dpo_pipeline.plugin.capture import emit_candidates


class EmittingConfig(FunctionBaseConfig, name="emitting"):
    failing: bool = False


@register_function(config_type=EmittingConfig)
async def emitting(config: EmittingConfig, builder: Builder):
    async def run(text: str) -> str:
        emit_candidates(prompt=text, responses=["a", "b"], scores=[1.0, 2.0])
        with open("emitted.txt", "a") as file:
            file.write("x" * 2)
        await asyncio.sleep(0)
        if config.failing and text.endswith("7"):
            raise ValueError("this item fails")
        return text

    yield FunctionInfo.from_fn(run)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a workflow that emits two candidates an item, and a data set of 200 items."""
    install(tmp_path, "emitting", _MODULE)
    rows = [{"id": f"id-{number}", "question": f"question {number}", "answer": ""} for number in range(200)]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    return tmp_path


def _config(place: Path, *, failing: bool = False, max_bytes: int = 20_000) -> str:
    config: dict[str, Any] = {
        "general": {"telemetry": {"tracing": {"candidates": {"_type": "dpo_candidates", "max_bytes": max_bytes}}}},
        "workflow": {"_type": "emitting", "failing": failing},
        "eval": {
            "general": {
                "output_dir": "evaluation",
                "max_concurrency": 8,
                "dataset": {"_type": "json", "file_path": "data.json"},
            }
        },
        "trajectory_builders": {"builder": {"_type": "dpo_traj_builder"}},
        "trainers": {"trainer": {"_type": "dpo_trainer"}},
        "trainer_adapters": {"adapter": {"_type": "dataset_trainer_adapter", "output_dir": "dataset"}},
        "finetuning": {
            "enabled": True,
            "trainer": "trainer",
            "trajectory_builder": "builder",
            "trainer_adapter": "adapter",
            "output_dir": "run",
        },
    }
    (place / "config.yml").write_text(yaml.safe_dump(config))
    return "config.yml"


def _rows(place: Path) -> list[dict[str, Any]]:
    files = sorted((place / "recorded").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def test_two_evaluations_at_once_record_each_of_their_candidates(place: Path) -> None:
    arguments = ("eval", "--config_file", _config(place))
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(run_nat, place, *arguments) for _ in range(2)]:
            done.result()
    rows = _rows(place)
    assert len(rows) == 800
    assert Counter(row["item_id"] for row in rows) == Counter({f"id-{number}": 4 for number in range(200)})
    assert all(row["item_id"].removeprefix("id-") == row["input"].removeprefix("question ") for row in rows)
    assert set(Counter((row["run_id"], row["turn_id"]) for row in rows).values()) == {2}
    assert len(list((place / "recorded").iterdir())) > 10


def test_an_evaluation_with_failing_items_keeps_what_they_emitted(place: Path) -> None:
    run_nat(place, "eval", "--config_file", _config(place, failing=True))
    rows = _rows(place)
    assert len(rows) == (place / "emitted.txt").stat().st_size >= 16
    assert any(row["input"].endswith("7") for row in rows)


def test_a_single_run_and_fine_tuning_are_recorded(place: Path) -> None:
    config = _config(place)
    run_nat(place, "run", "--config_file", config, "--input", "alone")
    rows = _rows(place)
    assert [row["input"] for row in rows] == ["alone", "alone"]
    assert [row["example_id"] for row in rows] == [rows[0]["run_id"]] * 2
    told = run_nat(place, "finetune", "--config_file", config)
    assert "candidates" in told
    tuned = _rows(place)[2:]
    assert Counter(row["example_id"] for row in tuned) == Counter({f"id-{number}": 2 for number in range(200)})


@contextmanager
def _serving(place: Path, config: str) -> Iterator[int]:
    """The port of a server that is killed in the end, which is the worst that may happen to one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (NAT, "serve", "--config_file", config, "--host", "127.0.0.1", "--port", str(port))
    with started(place, *command, env=environment(place)) as server:
        server.wait_until(lambda: _answers(port))
        yield port


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _posted(port: int, path: str, text: str) -> bytes:
    headers = {"Content-Type": "application/json", "workflow-run-id": f"run of {text}"}
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("POST", path, json.dumps({"text": text}), headers)
        reply = connection.getresponse()
        assert reply.status == 200
        return reply.read()


def test_two_servers_record_what_they_are_asked_and_being_killed_costs_nothing(place: Path) -> None:
    # NAT 1.9 needs it for every `nat serve`, but declares it in an extra alone.
    pytest.importorskip("sqlalchemy", reason="`nat serve` needs sqlalchemy")
    config = _config(place, max_bytes=1000)
    with _serving(place, config) as first, _serving(place, config) as second, ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(_posted, port, path, f"{port} {path} {number}")
            for number in range(10)
            for port in (first, second)
            for path in ("/generate", "/generate/full")
        ]
        replies = [one.result() for one in asked]
    assert len(replies) == 40
    rows = _rows(place)
    assert len(rows) == 80
    assert all(row["example_id"] == row["run_id"] == f"run of {row['input']['text']}" for row in rows)
