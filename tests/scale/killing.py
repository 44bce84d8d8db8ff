"""Processes that are killed at moments nobody chose."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any


def command(path: Path, output: Path, options: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "tests.scale.command", str(path), str(output), json.dumps(options)]


def run_to_its_end(arguments: Sequence[str]) -> float:
    """Seconds that it took. It must succeed and say nothing."""
    started = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return time.monotonic() - started


def run_and_kill(arguments: Sequence[str], after: float) -> bool:
    """Whether the process was killed before it ended."""
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(after)
    was_alive = process.poll() is None
    process.kill()
    process.wait()
    return was_alive


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


class Killer:
    """In a `with` block kills one process of those that `find` finds, after so many seconds."""

    def __init__(self, find: Callable[[], list[int]], after: float, seed: int) -> None:
        self._find = find
        self._after = after
        self._draw = Random(seed)
        self._is_over = Event()
        self._thread = Thread(target=self._kill)
        self.killed = 0

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _kill(self) -> None:
        self._is_over.wait(self._after)
        while not self._is_over.is_set():
            found = self._find()
            if found:
                with suppress(ProcessLookupError):
                    os.kill(self._draw.choice(found), signal.SIGKILL)
                    self.killed += 1
                return
            self._is_over.wait(0.005)
