"""`nat dpo generate --engine ray`, as a user starts it, on a cluster of two workers on this machine."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import pytest

from tests.commands import NAT, environment, process, run_nat, started
from tests.generate_runs import WAITS, Served, manifest, results, served, served_config
from tests.pairing.killing import children


@pytest.fixture
def model() -> Iterator[Served]:
    with served(seconds=0.05) as model:
        yield model


def _command(folder: Path, url: str, **workflow: object) -> tuple[str, ...]:
    command = served_config(folder, url, **{"n_subtopics": 2, **workflow})
    topics = [part for topic in ("Data structures", "Text", "Dates", "Data structures") for part in ("--topic", topic)]
    return (*command, *topics, "-o")


# Whoever joins a cluster must know its token.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """A cluster that runs already: its address, and the process that started it."""
    start = "import ray, sys; print(ray.init(num_cpus=2, include_dashboard=False).address_info['address'], flush=True)"
    command = ("-W", "ignore", "-c", f"{start}; sys.stdin.read()")
    with process(command, Path(), environment(**TOKEN), (PIPE, PIPE, DEVNULL), afresh=True) as running:
        assert isinstance(running, Popen)
        assert running.stdout is not None
        try:
            yield running.stdout.readline().decode().strip(), running.pid
        finally:
            running.communicate()


def test_workers_make_what_one_process_makes_also_when_one_is_killed_or_all_are_interrupted(
    tmp_path: Path, model: Served, cluster: tuple[str, int]
) -> None:
    command, (address, started_by) = _command(tmp_path, model.url), cluster
    whole = run_nat(tmp_path, *command, "whole")
    assert whole.code == 0, whole.logs
    calls = model.answered
    expected = results(tmp_path / "whole")
    on_ray = (*command, "run", "--engine", "ray", "--address", address)
    env = environment(**TOKEN)

    def workers() -> list[int]:
        return children("GenerationWorker", started_by)

    model.held_from = calls + 21
    with started(tmp_path, NAT, *on_ray, env=env) as running:
        running.wait_until(lambda: model.answered >= calls + 20 and len(workers()) == 2)
        os.kill(workers()[0], signal.SIGKILL)
        model.held_from = calls + 61
        running.wait_until(lambda: model.answered >= calls + 50)
        running.process.send_signal(signal.SIGINT)
        running.wait_until(lambda: WAITS in running.said)
        model.seconds = 1.0  # a message to the workers must be faster than all that is left
        model.release()
        done = running.end()
    model.seconds = 0.0
    assert done.code == 130, done.said
    assert "Traceback" not in done.said
    assert manifest(tmp_path / "run")["status"] == "interrupted"
    assert len(list((tmp_path / "run" / "workers").glob("*/journal.sqlite"))) == 2

    done = run_nat(tmp_path, *on_ray, env=env)
    assert done.code == 0, done.logs
    assert results(tmp_path / "run") == expected
    assert done.count("candidates") == whole.count("candidates")
    ours, theirs = (manifest(tmp_path / name) for name in ("run", "whole"))
    assert [ours[name] for name in ("status", "counts", "skipped")] == [
        theirs[name] for name in ("status", "counts", "skipped")
    ]
    # What was under way at the kill, two calls of each model at most, is asked again.
    assert model.answered <= 2 * calls + 4


def test_what_workers_cannot_do_is_one_line(tmp_path: Path, model: Served) -> None:
    command = _command(tmp_path, model.url, max_concurrency=1)
    done = run_nat(tmp_path, *command, "run", "--engine", "ray", "--workers", "4")
    assert done.code == 1
    assert "3 workers cannot share the max_concurrency of 'reward', which is 1" in done.last_line()
    done = run_nat(tmp_path, *_command(tmp_path, model.url), "run", "--engine", "ray", "--address", "127.0.0.1:9")
    assert done.code == 1
    assert "no Ray cluster answers at '127.0.0.1:9'" in done.last_line()
    done = run_nat(tmp_path, *_command(tmp_path, model.url), "run", "--engine", "ray", "--workers", "3")
    assert done.code == 1
    assert "was begun with 2 workers" in done.last_line()
    assert model.answered == 0
