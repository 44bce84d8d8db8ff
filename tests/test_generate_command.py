"""`nat dpo generate`, as a user starts it. Each start costs seconds, so a test looks at as much as it can."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from nat_dpo_pipeline.dataset.files import lock_of
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.testing.server import Answer, LoopbackServer, Request, Response, asgi_answer, serving

ROOT = Path(__file__).parents[1]
NAT = Path(sys.executable).with_name("nat")
KEYS = ("NVIDIA_API_KEY", "NVIDIA_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in KEYS} | {
    "NAT_TELEMETRY_ENABLED": "false",
    "NO_COLOR": "1",
}
GENERATE = ("dpo", "generate", "--config_file")
PAIRS = ("dataset/trl/train.jsonl", "dataset/trl/validation.jsonl")
RESULTS = ("candidates.jsonl", *PAIRS)


@dataclass(frozen=True)
class Done:
    """A command that ended: its exit code, what it said, and what it and NAT logged."""

    code: int
    output: str
    logs: str

    def count(self, name: str) -> int:
        return int(next(line for line in self.output.splitlines() if line.startswith(f"  {name} ")).split()[1])

    def total(self) -> list[str]:
        return next(line for line in self.output.splitlines() if line.startswith("  total")).split()[1:]


def _start(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(NAT), *arguments],
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def _end(process: "subprocess.Popen[str]") -> Done:
    output, logs = process.communicate(timeout=120)
    return Done(process.returncode, output, logs)


def _nat(folder: Path, *arguments: str, **environment: str) -> Done:
    return _end(_start(folder, *arguments, **environment))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like the project's root, so that nothing is written there."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return tmp_path


def _manifest(run: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_bytes())
    return manifest


def _results(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in RESULTS}


def _rows(*files: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _pair(row: dict[str, Any]) -> tuple[str, ...]:
    texts = row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"]
    return (*texts, str(row["chosen_score"]), str(row["rejected_score"]))


def _assert_quiet(done: Done) -> None:
    """Nothing is logged; what NAT's dependencies warn of is theirs."""
    assert "Traceback" not in done.output + done.logs
    assert [line for line in done.logs.splitlines() if " - " in line] == []


def test_candidates_and_pairs_are_those_of_finetune_and_a_second_start_asks_nothing(place: Path) -> None:
    run = place / "run"
    command = (*GENERATE, "configs/demo.yml", "--run-dir", "run")
    done = _nat(place, *command)
    assert done.code == 0, done.output + done.logs
    _assert_quiet(done)
    assert "Complete" in done.output
    assert [done.count(name) for name in ("topics", "subtopics", "questions", "candidates")] == [3, 15, 60, 240]
    assert _manifest(run)["status"] == "complete"
    before = _results(run)

    assert _nat(place, "finetune", "--config_file", "configs/demo.yml").code == 0
    finetuned = place / "runs" / "demo" / "dataset"
    for side in ("train.jsonl", "validation.jsonl"):
        ours, theirs = _rows(run / "dataset" / "trl" / side), _rows(finetuned / "trl" / side)
        assert ours
        assert sorted(map(_pair, ours)) == sorted(map(_pair, theirs))
        assert {row["example_id"] for row in ours} == {row["example_id"] for row in theirs}

    again = _nat(place, *command)
    assert again.code == 0
    assert "499 replies from the journal" in again.output
    assert again.total()[:3] == ["0", "0", "499"]
    assert _results(run) == before

    output = ("-o", "trainer_adapters.dataset.output_dir", str(place / "mine"))
    rows = str(run / "candidates.jsonl")
    done = _nat(place, "finetune", "--config_file", "configs/candidates.yml", "--dataset", rows, *output)
    assert done.code == 0, done.output + done.logs
    assert re.search(r"candidates +240$", done.logs, re.MULTILINE), done.logs


class Served:
    """The demo model over HTTP, slowly, and what it was asked. From call number `stuck_from` on it keeps still."""

    def __init__(self, answer: Answer | None = None, seconds: float = 0.1) -> None:
        self.server = LoopbackServer(answer or asgi_answer(create_app()), latency=self._latency)
        self.url = ""
        self.stuck_from = sys.maxsize
        self._seconds = seconds

    def _latency(self, request: Request) -> float:
        return self._seconds if request.number < self.stuck_from else 60.0

    def wait_for(self, answered: int) -> None:
        deadline = time.monotonic() + 60
        while self.server.answered < answered:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def _serving(served: Served) -> Iterator[Served]:
    with serving(served.server) as url:
        served.url = url
        yield served


def _config(folder: Path, url: str, **workflow: object) -> tuple[str, ...]:
    """The demo over HTTP, smaller."""
    source = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    for entry in source["llms"].values():
        entry |= {"_type": "openai", "base_url": url}
    source["workflow"] |= {"n_subtopics": 3, "n_questions": 3, "n_responses": 3, "max_concurrency": 4, **workflow}
    (folder / "served.yml").write_text(yaml.safe_dump(source))
    return (*GENERATE, "served.yml", "--topic", "Data structures", "--run-dir")


def test_a_run_that_was_interrupted_or_killed_is_completed_by_the_same_command(tmp_path: Path) -> None:
    with _serving(Served()) as served:
        command = _config(tmp_path, served.url)
        whole = _nat(tmp_path, *command, "whole")
        assert whole.code == 0, whole.logs
        assert whole.count("candidates") == 27
        calls = served.server.answered
        expected = _results(tmp_path / "whole")

        process = _start(tmp_path, *command, "interrupted")
        served.wait_for(calls + 25)
        process.send_signal(signal.SIGINT)
        done = _end(process)
        assert done.code == 130, done.logs
        assert "Traceback" not in done.output + done.logs
        assert "waiting for the calls under way" in done.logs
        assert "The same command goes on from here" in done.output
        assert _manifest(tmp_path / "interrupted")["status"] == "interrupted"
        partial = (tmp_path / "interrupted" / "candidates.jsonl").read_bytes().splitlines()
        assert 0 < len(partial) < 9
        assert set(partial) < set(expected["candidates.jsonl"].splitlines())
        done = _nat(tmp_path, *command, "interrupted")
        assert done.code == 0, done.logs
        assert _results(tmp_path / "interrupted") == expected
        assert served.server.answered == 2 * calls

        process = _start(tmp_path, *command, "killed")
        served.wait_for(2 * calls + 25)
        process.kill()
        _end(process)
        assert not (tmp_path / "killed" / "manifest.json").exists()
        done = _nat(tmp_path, *command, "killed")
        assert done.code == 0, done.logs
        assert _results(tmp_path / "killed") == expected
        assert not list((tmp_path / "killed").glob(".turns*"))
        # What was under way at the moment of the kill, at most four calls of each model, is lost.
        assert served.server.answered <= 3 * calls + 8

        with lock_of(tmp_path / "killed"):
            done = _nat(tmp_path, *command, "killed")
        assert done.code == 1
        assert done.logs.splitlines()[-1].startswith("Error: another run is writing to 'killed'")
        assert _results(tmp_path / "killed") == expected


def test_on_a_terminal_there_is_a_table_and_an_interruption_leaves_no_trace_of_it(tmp_path: Path) -> None:
    screen: list[bytes] = []
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))

    def read() -> None:
        with suppress(OSError):  # Linux says so when the last process has left the terminal
            while text := os.read(controller, 65536):
                screen.append(text)

    with _serving(Served()) as served:
        reader = Thread(target=read)
        reader.start()
        process = subprocess.Popen(
            [str(NAT), *_config(tmp_path, served.url), "run"],
            cwd=tmp_path,
            env=ENVIRONMENT | {"TERM": "xterm-256color"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            preexec_fn=_take_the_terminal,
        )
        os.close(terminal)
        served.wait_for(25)
        os.write(controller, b"\x03")
        assert process.wait(60) == 130
        reader.join()
        os.close(controller)
    shown = b"".join(screen).decode()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert re.search(r"done +running +failed +calls +tokens in +tokens out", plain)
    assert "requests/s" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "Traceback" not in shown
    assert "Interrupted after" in shown[shown.index("\x1b[?25h") :]
    assert "requests/s" not in shown[shown.index("Interrupted after") :]


def _take_the_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_second_interruption_ends_at_once(tmp_path: Path) -> None:
    served = Served(seconds=0.0)
    served.stuck_from = 30
    with _serving(served):
        process = _start(tmp_path, *_config(tmp_path, served.url), "run")
        served.wait_for(29)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        done = _end(process)
    assert time.monotonic() - began < 10
    assert done.code == 130
    assert "Traceback" not in done.output + done.logs
    assert done.logs.splitlines()[-1].startswith("Interrupted at once")


IN_YAML, IN_ENVIRONMENT, IN_OPTION = "sk-planted-in-yaml", "sk-planted-in-env", "sk-planted-in-option"


def _spent_after(count: int) -> Answer:
    demo = asgi_answer(create_app())

    async def answer(request: Request) -> Response:
        if request.number > count:
            key = request.headers["authorization"]
            return Response(402, {"error": {"message": f"the credit of {key} is used up", "code": "spent"}})
        answered = demo(request)
        assert not isinstance(answered, Response)
        return await answered

    return answer


def test_spent_credit_ends_a_run_with_one_message_and_no_secret_gets_out(tmp_path: Path) -> None:
    with _serving(Served(_spent_after(35), seconds=0.0)) as served:
        command = _config(tmp_path, served.url)
        source = yaml.safe_load((tmp_path / "served.yml").read_text())
        source["llms"]["reward"]["api_key"] = IN_YAML
        (tmp_path / "served.yml").write_text(yaml.safe_dump(source))
        option = ("-o", "llms.writer.api_key", IN_OPTION)
        environment = {"OPENAI_API_KEY": IN_ENVIRONMENT, "NVIDIA_API_KEY": IN_ENVIRONMENT}
        done = _nat(tmp_path, "--log-level", "DEBUG", *command, "run", *option, **environment)
    assert done.code == 1
    assert "Traceback" not in done.output + done.logs
    last = done.logs.splitlines()[-1]
    assert last.startswith("Error: model ")
    assert "answered 402: the credit of Bearer *** is used up" in last
    assert "Stopped" in done.output
    assert _manifest(tmp_path / "run")["status"] == "stopped"
    kept = sum(len(row["candidates"]) for row in _rows(tmp_path / "run" / "candidates.jsonl"))
    assert done.count("candidates") == kept > 0
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    for secret in (IN_YAML, IN_ENVIRONMENT, IN_OPTION):
        assert not any(secret.encode() in text for text in written)
        assert secret not in done.output + done.logs
