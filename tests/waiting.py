"""Wait for an event as long as whoever causes it is alive. No wait here ends by the clock.

A machine under load is slow, and a test that is slow is no failure. One that hangs is ended by the limit of CI alone;
`faulthandler_timeout` shows where it hangs.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

# Processes and threads of other loops set no event here, so their traces are looked for: 200 times a second.
_PAUSE_SECONDS = 0.005

Condition = Callable[[], object]


def forever() -> bool:
    """Stand for a cause that lives as long as the test itself."""
    return True


def wait_until(happened: Condition, is_alive: Condition = forever) -> None:
    """Wait until `happened()`; raise AssertionError when `is_alive()` no longer holds and it still has not."""
    while not happened():
        if not is_alive():
            # It may have happened just before the end.
            assert happened(), "the cause ended before the event"
            return
        time.sleep(_PAUSE_SECONDS)


async def until(happened: Condition, is_alive: Condition = forever) -> None:
    """Do the same as `wait_until` while the other tasks of this loop go on."""
    while not happened():
        if not is_alive():
            assert happened(), "the cause ended before the event"
            return
        await asyncio.sleep(_PAUSE_SECONDS)


@dataclass
class Ticks:
    """How many turns of its loop a task has had."""

    count: int = 0


@asynccontextmanager
async def ticking() -> AsyncIterator[Ticks]:
    """Count turns of the loop, which does not go on while something blocks it."""
    ticks = Ticks()

    async def tick() -> None:
        while True:
            ticks.count += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(tick())
    try:
        yield ticks
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
