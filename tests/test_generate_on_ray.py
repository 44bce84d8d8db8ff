"""`nat dpo generate --engine ray`, as a user starts it, on a cluster of two workers on this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.test_generate_command import (
    ENVIRONMENT,
    GENERATE,
    ROOT,
    Served,
    _end,
    _manifest,
    _nat,
    _results,
    _serving,
    _start,
)


@pytest.fixture
def served() -> Iterator[Served]:
    with _serving(Served(seconds=0.05)) as served:
        yield served


def _command(folder: Path, url: str, **workflow: object) -> tuple[str, ...]:
    source = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    for entry in source["llms"].values():
        entry |= {"_type": "openai", "base_url": url}
    source["workflow"] |= {"n_subtopics": 2, "n_questions": 3, "n_responses": 3, "max_concurrency": 4, **workflow}
    (folder / "served.yml").write_text(yaml.safe_dump(source))
    topics = [part for topic in ("Data structures", "Text", "Dates", "Data structures") for part in ("--topic", topic)]
    return (*GENERATE, "served.yml", *topics, "--run-dir")


# Whoever joins a cluster must know its token.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """A cluster that runs already: its address, and the process that started it."""
    start = "import ray, sys; print(ray.init(num_cpus=2, include_dashboard=False).address_info['address'], flush=True)"
    command = [sys.executable, "-W", "ignore", "-c", f"{start}; sys.stdin.read()"]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=ENVIRONMENT | TOKEN, text=True, **quiet) as process:  # type: ignore[call-overload]
        yield process.stdout.readline().strip(), process.pid
        process.communicate()


def _workers_below(driver: int) -> list[int]:
    """The processes of the cluster that generate."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(maxsplit=2) for line in listed.splitlines()]
    below = {driver}
    for _ in range(5):
        below |= {int(pid) for pid, parent, *_ in found if int(parent) in below}
    return [int(pid) for pid, _, *args in found if int(pid) in below and "GenerationWorker" in " ".join(args)]


def test_workers_make_what_one_process_makes_also_when_one_is_killed_or_all_are_interrupted(
    tmp_path: Path, served: Served, cluster: tuple[str, int]
) -> None:
    command, (address, started_by) = _command(tmp_path, served.url), cluster
    whole = _nat(tmp_path, *command, "whole")
    assert whole.code == 0, whole.logs
    calls = served.server.answered
    expected = _results(tmp_path / "whole")
    on_ray = (*command, "run", "--engine", "ray", "--address", address)

    process = _start(tmp_path, *on_ray, **TOKEN)
    served.wait_for(calls + 20)
    victim, _ = _workers_below(started_by)
    os.kill(victim, signal.SIGKILL)
    served.wait_for(calls + 60)
    process.send_signal(signal.SIGINT)
    done = _end(process)
    assert done.code == 130, done.output + done.logs
    assert "Traceback" not in done.output + done.logs
    assert _manifest(tmp_path / "run")["status"] == "interrupted"
    assert len(list((tmp_path / "run" / "workers").glob("*/journal.sqlite"))) == 2

    done = _nat(tmp_path, *on_ray, **TOKEN)
    assert done.code == 0, done.logs
    assert _results(tmp_path / "run") == expected
    assert done.count("candidates") == whole.count("candidates")
    ours, theirs = (_manifest(tmp_path / name) for name in ("run", "whole"))
    assert [ours[name] for name in ("status", "counts", "skipped")] == [
        theirs[name] for name in ("status", "counts", "skipped")
    ]
    # What was under way at the kill, two calls of each model at most, is asked again.
    assert served.server.answered <= 2 * calls + 4


def test_what_workers_cannot_do_is_one_line(tmp_path: Path, served: Served) -> None:
    command = _command(tmp_path, served.url, max_concurrency=1)
    done = _nat(tmp_path, *command, "run", "--engine", "ray", "--workers", "4")
    assert done.code == 1
    assert "3 workers cannot share the max_concurrency of 'reward', which is 1" in done.logs.splitlines()[-1]
    done = _nat(tmp_path, *_command(tmp_path, served.url), "run", "--engine", "ray", "--address", "127.0.0.1:9")
    assert done.code == 1
    assert "no Ray cluster answers at '127.0.0.1:9'" in done.logs.splitlines()[-1]
    done = _nat(tmp_path, *_command(tmp_path, served.url), "run", "--engine", "ray", "--workers", "3")
    assert done.code == 1
    assert "was begun with 2 workers" in done.logs.splitlines()[-1]
    assert served.server.answered == 0
