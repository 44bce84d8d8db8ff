"""Several tasks at once, within a time limit; none outlives whoever waits for them."""

import asyncio
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
# Tasks that were cancelled may still close what they had open; one that does not end is left behind.
_SECONDS_TO_END = 1.0


async def ended_by(tasks: Sequence["asyncio.Task[T]"], seconds: float | None) -> None:
    """Wait for the tasks; what has not ended after `seconds`, or when this is cancelled, is cancelled."""
    async with _Ending(tasks):
        await asyncio.wait(tasks, timeout=seconds)


async def answered_by(tasks: Sequence["asyncio.Task[T]"], seconds: float | None, *, first: bool) -> None:
    """As `ended_by`, but with at least one result if there is any to have: the first task's, with `first`."""
    async with _Ending(tasks):
        _, pending = await asyncio.wait(tasks, timeout=seconds)
        while pending and not _is_answered(tasks, first):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


async def first_of(tasks: Sequence["asyncio.Task[T]"]) -> None:
    """Wait for the first of the tasks, while the others go on; when this is cancelled, all of them are."""
    try:
        await asyncio.wait(tasks[:1])
    except asyncio.CancelledError:
        async with _Ending(tasks):
            raise


def has_result(task: "asyncio.Task[T]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _is_answered(tasks: Sequence["asyncio.Task[T]"], first: bool) -> bool:
    return any(map(has_result, tasks)) and (tasks[0].done() or not first)


class _Ending:
    """Cancels, on leaving, the tasks that are not done."""

    def __init__(self, tasks: Sequence["asyncio.Task[T]"]) -> None:
        self._tasks = tasks

    async def __aenter__(self) -> None:
        for task in self._tasks:
            task.add_done_callback(_looked_at)

    async def __aexit__(self, *_: object) -> None:
        pending = [task for task in self._tasks if not task.done()]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=_SECONDS_TO_END)


def _looked_at(task: "asyncio.Task[T]") -> None:
    """asyncio complains of exceptions that nobody looked at."""
    if not task.cancelled():
        task.exception()
