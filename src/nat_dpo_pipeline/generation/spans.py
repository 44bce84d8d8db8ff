"""What a run counts: the items that a step holds, and whether anything more can come of one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class Slot:
    """The place of an item among the workers of the step that it is in."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free: asyncio.Semaphore | None = None

    async def take(self, free: asyncio.Semaphore) -> None:
        """Wait for one of the places that are `free`."""
        await free.acquire()
        self._free = free

    def release(self) -> None:
        """Give the place back, unless that was done before."""
        if self._free is not None:
            self._free.release()
            self._free = None


class Span:
    """Counts the living descendants of one item until they have passed stage number `until`, and then ends.

    `members` are those that an aggregate collects, `whole` is the item of which they came. `ordered` spans of siblings
    are chained: the turn of one comes when all before it have ended.
    """

    __slots__ = ("following", "living", "members", "on_end", "ordered", "turn", "until", "waits", "whole")

    def __init__(
        self,
        until: int,
        on_end: Callable[["Span"], Awaitable[None]] | None = None,
        *,
        ordered: bool = False,
        previous: "Span | None" = None,
    ) -> None:
        self.until = until
        self.on_end = on_end
        self.ordered = ordered
        self.members: list[Any] = []
        self.whole: Any = None
        self.living = 0
        self.turn: asyncio.Event | None = None
        self.following: Span | None = None
        self.waits = False
        if previous is not None and not previous.is_settled():
            self.waits = True
            previous.following = self

    def enter(self) -> None:
        """One more descendant."""
        self.living += 1

    async def leave(self) -> None:
        """One descendant less: it is past the stage, or was dropped."""
        self.living -= 1
        if self.living == 0:
            self._pass_on()
            if self.on_end is not None:
                await self.on_end(self)

    def is_settled(self) -> bool:
        """Whether this one and all siblings before it have ended."""
        return self.living == 0 and not self.waits

    async def its_turn(self) -> None:
        """Wait until all siblings before it have ended."""
        if self.waits:
            self.turn = self.turn or asyncio.Event()
            await self.turn.wait()

    def _pass_on(self) -> None:
        span: Span | None = self
        while span is not None and span.is_settled():
            following, span.following = span.following, None
            if following is not None:
                following.waits = False
                if following.turn is not None:
                    following.turn.set()
            span = following
