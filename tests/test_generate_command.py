"""`nat dpo generate`, as a user starts it. Each start costs seconds, so a test looks at as much as it can."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from nat_dpo_pipeline.dataset.files import lock_of
from nat_dpo_pipeline.demo import create_app
from nat_dpo_pipeline.testing.server import Answer, Request, Response, asgi_answer
from tests.commands import NAT, Done, environment, process, run_nat, started
from tests.generate_runs import GENERATE, ROOT, WAITS, manifest, results, served, served_config
from tests.waiting import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like the project's root, so that nothing is written there."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    return tmp_path


def _rows(*files: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _pair(row: dict[str, Any]) -> tuple[str, ...]:
    texts = row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"]
    return (*texts, str(row["chosen_score"]), str(row["rejected_score"]))


def _total(done: Done) -> list[str]:
    return next(line for line in done.output.splitlines() if line.startswith("  total")).split()[1:]


def _assert_quiet(done: Done) -> None:
    """Nothing is logged; what NAT's dependencies warn of is theirs."""
    assert "Traceback" not in done.said
    assert [line for line in done.logs.splitlines() if " - " in line] == []


def test_candidates_and_pairs_are_those_of_finetune_and_a_second_start_asks_nothing(place: Path) -> None:
    run = place / "run"
    command = (*GENERATE, "configs/demo.yml", "-o", "run")
    done = run_nat(place, *command)
    assert done.code == 0, done.said
    _assert_quiet(done)
    assert "Complete" in done.output
    assert [done.count(name) for name in ("topics", "subtopics", "questions", "candidates")] == [3, 15, 60, 240]
    assert manifest(run)["status"] == "complete"
    before = results(run)

    assert run_nat(place, "finetune", "--config_file", "configs/demo.yml").code == 0
    finetuned = place / "runs" / "demo" / "dataset"
    for side in ("train.jsonl", "validation.jsonl"):
        ours, theirs = _rows(run / "dataset" / "trl" / side), _rows(finetuned / "trl" / side)
        assert ours
        assert sorted(map(_pair, ours)) == sorted(map(_pair, theirs))
        assert {row["example_id"] for row in ours} == {row["example_id"] for row in theirs}

    again = run_nat(place, *command, afresh=True)
    assert again.code == 0
    assert "499 replies from the journal" in again.output
    assert _total(again)[:3] == ["0", "0", "499"]
    assert results(run) == before

    output = ("-o", "trainer_adapters.dataset.output_dir", str(place / "mine"))
    rows = str(run / "candidates.jsonl")
    done = run_nat(place, "finetune", "--config_file", "configs/candidates.yml", "--dataset", rows, *output)
    assert done.code == 0, done.said
    assert re.search(r"candidates +240$", done.logs, re.MULTILINE), done.logs


TOPIC = ("--topic", "Data structures", "-o")


def test_a_run_that_was_interrupted_or_killed_is_completed_by_the_same_command(tmp_path: Path) -> None:
    with served() as model:
        command = (*served_config(tmp_path, model.url), *TOPIC)
        whole = run_nat(tmp_path, *command, "whole")
        assert whole.code == 0, whole.logs
        assert whole.count("candidates") == 27
        calls = model.answered
        expected = results(tmp_path / "whole")

        model.held_from = calls + 26
        with started(tmp_path, NAT, *command, "interrupted") as running:
            running.wait_until(lambda: model.answered >= calls + 25)
            running.process.send_signal(signal.SIGINT)
            running.wait_until(lambda: WAITS in running.said)
            model.release()
            done = running.end()
        assert done.code == 130, done.logs
        assert "Traceback" not in done.said
        assert "The same command goes on from here" in done.output
        assert manifest(tmp_path / "interrupted")["status"] == "interrupted"
        partial = (tmp_path / "interrupted" / "candidates.jsonl").read_bytes().splitlines()
        assert 0 < len(partial) < 9
        assert set(partial) < set(expected["candidates.jsonl"].splitlines())
        done = run_nat(tmp_path, *command, "interrupted", afresh=True)
        assert done.code == 0, done.logs
        assert results(tmp_path / "interrupted") == expected
        assert model.answered == 2 * calls

        model.held_from = 2 * calls + 26
        with started(tmp_path, NAT, *command, "killed") as running:
            running.wait_until(lambda: model.answered >= 2 * calls + 25)
        model.release()
        assert not (tmp_path / "killed" / "manifest.json").exists()
        done = run_nat(tmp_path, *command, "killed")
        assert done.code == 0, done.logs
        assert results(tmp_path / "killed") == expected
        assert not list((tmp_path / "killed").glob(".turns*"))
        # What was under way at the moment of the kill, at most four calls of each model, is lost.
        assert model.answered <= 3 * calls + 8

        with lock_of(tmp_path / "killed"):
            done = run_nat(tmp_path, *command, "killed")
        assert done.code == 1
        assert done.last_line().startswith("Error: another run is writing to 'killed'")
        assert results(tmp_path / "killed") == expected


class Terminal:
    """A terminal on which a log line is one line: the end for a process, and what is shown on it."""

    def __init__(self) -> None:
        self._controller, self.end = pty.openpty()
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
        self._shown: list[bytes] = []

    def press(self, keys: bytes) -> None:
        os.write(self._controller, keys)

    def shown(self) -> str:
        return b"".join(self._shown).decode()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read until the last process has left, which is waited for in the end."""
        reader = Thread(target=self._read)
        reader.start()
        try:
            yield
        finally:
            os.close(self.end)
            reader.join()
            os.close(self._controller)

    def _read(self) -> None:
        with suppress(OSError):  # Linux says so when the last process has left the terminal
            while text := os.read(self._controller, 65536):
                self._shown.append(text)


def test_on_a_terminal_there_is_a_table_and_an_interruption_leaves_no_trace_of_it(tmp_path: Path) -> None:
    terminal = Terminal()
    env = environment(TERM="xterm-256color")
    with served() as model, terminal.reading():
        model.held_from = 26
        command = (NAT, *served_config(tmp_path, model.url), *TOPIC, "run")
        with process(command, tmp_path, env, (terminal.end,) * 3, afresh=False) as running:
            wait_until(lambda: model.answered >= 25, lambda: running.poll() is None)
            terminal.press(b"\x03")
            wait_until(lambda: WAITS in terminal.shown(), lambda: running.poll() is None)
            model.release()
            assert running.wait() == 130
    shown = terminal.shown()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert re.search(r"done +running +failed +calls +tokens in +tokens out", plain)
    assert "requests/s" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "Traceback" not in shown
    assert "Interrupted after" in shown[shown.index("\x1b[?25h") :]
    assert "requests/s" not in shown[shown.index("Interrupted after") :]


def test_a_second_interruption_ends_at_once(tmp_path: Path) -> None:
    with served(seconds=0.0) as model:
        model.held_from = 30
        with started(tmp_path, NAT, *served_config(tmp_path, model.url), *TOPIC, "run") as running:
            running.wait_until(lambda: model.received >= 30)
            running.process.send_signal(signal.SIGINT)
            running.wait_until(lambda: WAITS in running.said)
            running.process.send_signal(signal.SIGINT)
            # The calls under way are never answered.
            done = running.end()
    assert done.code == 130
    assert "Traceback" not in done.said
    assert done.last_line().startswith("Interrupted at once")


INTERRUPTING = """
import signal


def adapt(pipeline):
    signal.raise_signal(signal.SIGINT)
    return pipeline
"""


def test_an_interruption_within_the_running_task_leaves_no_traceback(place: Path) -> None:
    (place / "interrupting.py").write_text(INTERRUPTING)
    adapted = ("--override", "workflow.pipeline", "interrupting.adapt")
    command = (*GENERATE, "configs/demo.yml", "-o", "run", *adapted)
    done = run_nat(place, *command, env=environment(place))
    assert done.code == 130, done.said
    assert "Traceback" not in done.said
    assert done.last_line().startswith("Interrupted at once")


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
    with served(_spent_after(35), seconds=0.0) as model:
        command = (*served_config(tmp_path, model.url), *TOPIC)
        source = yaml.safe_load((tmp_path / "served.yml").read_text())
        source["llms"]["reward"]["api_key"] = IN_YAML
        (tmp_path / "served.yml").write_text(yaml.safe_dump(source))
        option = ("-o", "llms.writer.api_key", IN_OPTION)
        env = environment(OPENAI_API_KEY=IN_ENVIRONMENT, NVIDIA_API_KEY=IN_ENVIRONMENT)
        done = run_nat(tmp_path, "--log-level", "DEBUG", *command, "run", *option, env=env)
    assert done.code == 1
    assert "Traceback" not in done.said
    last = done.last_line()
    assert last.startswith("Error: model ")
    assert "answered 402: the credit of Bearer *** is used up" in last
    assert "Stopped" in done.output
    assert manifest(tmp_path / "run")["status"] == "stopped"
    kept = sum(len(row["candidates"]) for row in _rows(tmp_path / "run" / "candidates.jsonl"))
    assert done.count("candidates") == kept > 0
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    for secret in (IN_YAML, IN_ENVIRONMENT, IN_OPTION):
        assert not any(secret.encode() in text for text in written)
        assert secret not in done.said
