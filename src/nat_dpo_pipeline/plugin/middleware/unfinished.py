"""Work that goes on when whoever began it has what was wanted of it."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any


class Unfinished:
    """So many pieces of work at once, and none after `finish`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[object]] = set()
        self._is_ending = False

    @property
    def has_room(self) -> bool:
        return not self._is_ending and len(self._tasks) < self._most

    def start(self, work: Coroutine[Any, Any, object], context: Context) -> None:
        """Do the work, which raises nothing, in that context."""
        task = asyncio.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> int:
        """Wait for all work so long, and then cancel what is left of it, which is counted."""
        self._is_ending = True
        tasks = list(self._tasks)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=seconds)
        finally:
            left = [task for task in tasks if task.cancel()]
        await asyncio.gather(*left, return_exceptions=True)
        return len(left)
