"""Shards as tasks of a Ray cluster."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from nat_dpo_pipeline.errors import OutputError
from nat_dpo_pipeline.pairing.cluster import connected
from nat_dpo_pipeline.pairing.tasks import Done, Task
from nat_dpo_pipeline.pairing.work import do
from nat_dpo_pipeline.records.ranges import first_line

# So many tasks for each worker are with Ray, so that none waits for the next one; a long queue would only cost memory.
_AHEAD = 2


class RayEngine:
    """Tasks on the cluster at `address`, which must see the same files; without one on a cluster of this machine, which
    ends with the engine. It is reached for when there are tasks. A task whose worker or node dies is done again, up to
    `retries` times.
    """

    def __init__(self, address: str | None, workers: int, retries: int) -> None:
        self._address, self._workers = address, workers
        self._retries = retries
        self._connection = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        self._connection.enter_context(connected(self._address, self._workers))
        import ray

        remote = ray.remote(num_cpus=1, max_retries=self._retries)(do)
        waiting = deque(tasks)
        running: dict[Any, Task] = {}
        most = _AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    task = waiting.popleft()
                    running[remote.remote(task)] = task
                (ready, *_), _ = ray.wait(list(running))
                yield self._got(ready, running.pop(ready))
        finally:
            for left in running:
                ray.cancel(left, force=True)

    def _got(self, ready: Any, task: Task) -> Done:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            done: Done = ray.get(ready)
        except RayTaskError as error:
            raise error.cause or error from None
        except RayError as error:
            raise OutputError(
                f"shard {task.number} ended its worker {self._retries + 1} times: {first_line(error)}; if memory ran "
                "out, use a smaller shard_bytes"
            ) from error
        return done
