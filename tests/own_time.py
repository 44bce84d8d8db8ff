"""An event loop with a time of its own: as soon as no task can go on, it is later.

An hour of waiting takes no time and is measured to the second, at any speed of the machine. A limit of `wait_for` is
reached only by a task that would wait for ever. The marker `own_time` runs the asynchronous tests of a module in such
a loop. Work in the threads of its executor takes no time. The network counts as nobody's work, so no socket belongs
into such a test.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")

# No clock stands still: limiters wait for what rounding leaves of a turn, again and again until some time has passed.
_TICK_SECONDS = 1e-9


class _Clock(selectors.DefaultSelector):
    now = 0.0
    #: Pieces of work in threads, whose end is waited for in real time.
    at_work = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or (timeout > 0 and self.at_work):
            return super().select(None)
        self.now += max(timeout, _TICK_SECONDS)
        return super().select(0)


class OwnTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_forever(self) -> None:
        with patch.object(time, "monotonic", self.time):
            super().run_forever()

    def run_until_complete(self, future: Any) -> Any:
        # Where NAT has patched event loops it does not call run_forever.
        with patch.object(time, "monotonic", self.time):
            return super().run_until_complete(future)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        future = super().run_in_executor(executor, func, *arguments)
        self._clock.at_work += 1
        future.add_done_callback(self._worked)
        return future

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        self._clock.at_work += 1
        try:
            await super().shutdown_default_executor(*arguments)
        finally:
            self._clock.at_work -= 1

    def _worked(self, _: object) -> None:
        self._clock.at_work -= 1


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine in such a loop."""
    with asyncio.Runner(loop_factory=OwnTimeLoop) as runner:
        return runner.run(work)


async def until_nothing_moves() -> None:
    """Wait until every other task of the loop waits for something that is not there."""
    await asyncio.sleep(1)
