"""What carries tasks to processes, and how one on this machine does."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Protocol, Self

from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.scale.tasks import Done, Task
from nat_dpo_pipeline.scale.worker import receive, send


class Engine(Protocol):
    """Does tasks, each to its end, and again when the process that did it died. Used in a `with` block."""

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """What comes of the tasks, in any order. Closing the iterator gives up those that are left.

        Raises what a task raised, and OutputError for a task whose process died too often.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the processes that were started."""
        ...


class LocalEngine:
    """Processes on this machine. They are started anew, not forked nor with the caller's `__main__` in them."""

    def __init__(self, workers: int, retries: int) -> None:
        self._workers = workers
        self._retries = retries
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._started: list[_Worker] = []
        self._starting = Lock()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_workers()

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        threads = ThreadPoolExecutor(self._workers)
        try:
            for future in as_completed([threads.submit(self._do, task) for task in tasks]):
                yield future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            self._end_workers()
            raise
        finally:
            threads.shutdown()

    def _do(self, task: Task) -> Done:
        ended = ""
        for _ in range(self._retries + 1):
            worker = self._worker()
            try:
                answer = worker.do(task)
            except (EOFError, OSError):
                ended = worker.end()
                continue
            self._idle.put(worker)
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, Done)  # noqa: S101 - for the type checker
            return answer
        raise OutputError(
            f"shard {task.number} ended its process {self._retries + 1} times, at last with {ended}: if memory ran "
            "out, use fewer workers or a smaller shard_bytes"
        )

    def _worker(self) -> "_Worker":
        with suppress(Empty):
            return self._idle.get_nowait()
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


class _Worker:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nat_dpo_pipeline.scale.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def do(self, task: Task) -> object:
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
