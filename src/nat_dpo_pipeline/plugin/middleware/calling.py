"""A function is called several times, and its results are gathered."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from nat_dpo_pipeline.plugin.middleware.ceiling import Troubles
from nat_dpo_pipeline.plugin.middleware.repeating import answered_by, has_result
from nat_dpo_pipeline.plugin.middleware.seen_prompts import SeenPrompts
from nat_dpo_pipeline.plugin.middleware.texts import text_of
from nat_dpo_pipeline.plugin.middleware_config import BestOfNConfig, Returned
from nat_dpo_pipeline.plugin.varying import varied

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A result of the function, with its text as it was then; `call` is the number of the call that gave it."""

    call: int
    result: object
    text: str
    seen: SeenPrompts


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls that are under way; `begun` is a time of the monotonic clock."""

    tasks: Sequence["asyncio.Task[Answer]"]
    begun: float


class Calling:
    """How the configuration wants a function to be called."""

    def __init__(self, config: BestOfNConfig, troubles: Troubles) -> None:
        self._config = config
        self._troubles = troubles

    async def once(self, call: Call) -> Answer:
        """The result of the only call, which is made in the context of the caller."""
        return await self._answer(call, 0)

    def begun(self, call: Call, context: contextvars.Context | None = None) -> Calls:
        """All calls, under way in copies of the context."""
        slots = asyncio.Semaphore(self._config.calls_at_once or self._config.n)

        async def one(number: int) -> Answer:
            async with slots:
                return await self._answer(call, number)

        # In copies, so what one call pushes has the function as its parent, not another call.
        base = context or contextvars.copy_context()
        tasks = [asyncio.create_task(one(number), context=base.copy()) for number in range(self._config.n)]
        return Calls(tasks, time.monotonic())

    async def gathered(self, calls: Calls) -> list[Answer]:
        """The results there are, by the number of the call. Raises what the first call raised when there are none."""
        limit, passed = self._config.max_seconds, time.monotonic() - calls.begun
        seconds = None if limit is None else max(0.0, limit - passed)
        await answered_by(calls.tasks, seconds, first=self._config.returns is Returned.FIRST)
        self._note_failures(calls.tasks)
        answers = [task.result() for task in calls.tasks if has_result(task)]
        return answers or [calls.tasks[0].result()]

    async def _answer(self, call: Call, number: int) -> Answer:
        seen = SeenPrompts()
        with seen.watching(), self._varied(number):
            result = await call()
        return Answer(number, result, text_of(result), seen)

    def _varied(self, number: int) -> AbstractContextManager[None]:
        vary = self._config.vary
        return nullcontext() if vary is None else varied(vary.llm, vary.sampling(number))

    def _note_failures(self, tasks: Sequence["asyncio.Task[Answer]"]) -> None:
        for task in tasks:
            if not task.done() or task.cancelled():
                self._troubles.note("a call was given up after max_seconds")
            elif error := task.exception():
                self._troubles.note("a call of the function failed", error)
