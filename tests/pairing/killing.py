"""Processes that are killed at moments spread over a run: when so many files are there."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

from tests.commands import run, started
from tests.waiting import wait_until

_SCRIPT = Path(__file__).with_name("command.py")

Command = tuple[str | Path, ...]


def command(path: Path, output: Path, options: dict[str, Any]) -> Command:
    return _SCRIPT, path, output, json.dumps(options)


def run_to_its_end(command: Command) -> None:
    """It must succeed and say nothing."""
    done = run(Path(), *command)
    assert (done.code, done.said) == (0, "")


def run_counting_files(command: Command, output: Path) -> int:
    """Run to the end; give the largest number of files that were in `output` at once."""
    counts = [0]

    def is_done() -> bool:
        counts.append(count_files(output))
        return running.process.poll() is not None

    with started(Path(), *command) as running:
        wait_until(is_done)
        assert (running.end().code, running.said) == (0, "")
    return max(counts)


def run_and_kill(command: Command, is_time: Callable[[], object]) -> bool:
    """Whether the process was killed before it ended. Processes that it started are left alone."""
    with started(Path(), *command) as running:
        process = running.process
        wait_until(lambda: is_time() or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def moments(most: int, count: int, seed: object) -> list[int]:
    """Numbers of files, spread over the run in which there are `most` at once; the first is at the very beginning."""
    draw = Random(str(seed))
    return [0, *(int(most * (place + draw.random()) / (count - 1)) for place in range(count - 1))]


def children(names: str, root: int | None = None) -> list[int]:
    """Processes below this one, or below `root`, whose command line holds the name."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [os.getpid() if root is None else root]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            waiting.append(child)
            with suppress(OSError):
                if names in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(child)
    return found


@contextmanager
def killing(find: Callable[[], list[int]], is_time: Callable[[], object], seed: int = 0) -> Iterator[list[int]]:
    """Kill one process of those that `find` finds as soon as it is time; give those that were killed."""
    draw, is_over, killed = Random(seed), Event(), list[int]()

    def kill() -> None:
        def has_killed() -> bool:
            found = find() if is_time() else []
            for process in found and [draw.choice(found)]:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
            return bool(killed)

        wait_until(lambda: is_over.is_set() or has_killed())

    thread = Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()
