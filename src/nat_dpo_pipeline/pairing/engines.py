"""What carries tasks to processes, and how one on this machine does. Light, so that processes start at once."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, cast

from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.pairing.options import EngineName, PairingOptions
from nat_dpo_pipeline.pairing.worker import receive, send

if TYPE_CHECKING:
    from nat_dpo_pipeline.pairing.tasks import Done, Task

# Each block of rows takes as much memory as the one before. The C library would give it back in between, and the kernel
# clear it anew: a fifth of the time.
_KEEPS_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 28)}
# Started before anybody knows how many tasks there are.
_AT_ONCE = 4


def engine_of(options: PairingOptions) -> "Engine":
    """The engine that was asked for."""
    if options.engine is EngineName.MEMORY:
        return InlineEngine()
    if options.engine is EngineName.RAY:
        from nat_dpo_pipeline.pairing.ray_engine import RayEngine

        return RayEngine(options.address, workers_of(options), options.retries)
    return LocalEngine(workers_of(options), options.retries)


def workers_of(options: PairingOptions) -> int:
    """How many processes work: one a core, unless another number was asked for."""
    if options.workers is not None:
        return options.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Engine(Protocol):
    """Does tasks, each to its end, and again when the process that did it died. Used in a `with` block."""

    def run(self, tasks: "Sequence[Task]") -> "Iterator[Done]":
        """What comes of the tasks, in any order. Closing the iterator gives up those that are left.

        Raises what a task raised, and OutputError for a task whose process died too often.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the processes that were started."""
        ...


class InlineEngine:
    """This process, which does one task after the other."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Do nothing."""

    def run(self, tasks: "Sequence[Task]") -> "Iterator[Done]":
        from nat_dpo_pipeline.pairing.work import do

        return (do(task) for task in tasks)


class LocalEngine:
    """Processes on this machine. They are started anew, not forked nor with the caller's `__main__` in them; the first
    few as soon as the `with` block begins, so that they import what they need while the run is planned.
    """

    def __init__(self, workers: int, retries: int) -> None:
        self._workers = workers
        self._retries = retries
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._started: list[_Worker] = []
        self._starting = Lock()
        self._is_closed = False

    def __enter__(self) -> Self:
        for _ in range(min(self._workers, _AT_ONCE)):
            self._idle.put(self._start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_workers()

    def run(self, tasks: "Sequence[Task]") -> "Iterator[Done]":
        threads = ThreadPoolExecutor(self._workers)
        self._is_closed = False
        try:
            for future in as_completed([threads.submit(self._do, task) for task in tasks]):
                yield future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            self._end_workers()
            raise
        finally:
            threads.shutdown()

    def _do(self, task: "Task") -> "Done":
        ended = ""
        for _ in range(self._retries + 1):
            worker = self._worker()
            try:
                answer = worker.do(task)
            except (EOFError, OSError, ValueError):  # the last of pipes that were closed when the process was ended
                ended = worker.end()
                continue
            self._idle.put(worker)
            if isinstance(answer, Exception):
                raise answer
            return cast("Done", answer)
        raise OutputError(
            f"shard {task.number} ended its process {self._retries + 1} times, at last with {ended}: if memory ran "
            "out, use fewer workers or a smaller shard_bytes"
        )

    def _worker(self) -> "_Worker":
        with suppress(Empty):
            return self._idle.get_nowait()
        return self._start()

    def _start(self) -> "_Worker":
        with self._starting:
            if self._is_closed:
                raise OutputError("the run has ended")
            worker = _Worker()
            self._started.append(worker)
        return worker

    def _end_workers(self) -> None:
        with self._starting:
            self._is_closed = True
            for worker in self._started:
                worker.end()
            self._started.clear()
            self._idle = SimpleQueue()


class _Worker:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nat_dpo_pipeline.pairing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_KEEPS_MEMORY | os.environ,
        )

    def do(self, task: "Task") -> object:
        """What comes of the task. Raises EOFError or OSError when the process died."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        assert self._process.stdout is not None  # noqa: S101
        send(self._process.stdin, task)
        return receive(self._process.stdout)

    def end(self) -> str:
        """End the process and say how it ended, if it had."""
        self._process.kill()
        code = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        return f"signal {-code}" if code < 0 else f"exit status {code}"
