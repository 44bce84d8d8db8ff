"""A list of exactly so many items from a model that repeats itself, stops early, or answers something else."""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from nat_dpo_pipeline.core.similarity import NearDuplicates


class Listing:
    """Items of one list, none like another, for as long as the model may be asked.

    `ask(missing, known, attempt)` gives what one reply held, maybe nothing, or None when asking again is of no
    use; `known` are all items so far.
    """

    def __init__(
        self,
        ask: Callable[[int, Sequence[str], int], Awaitable[list[str] | None]],
        *,
        attempts: int,
        near_duplicate: float,
    ) -> None:
        self._ask = ask
        self._attempts = iter(range(attempts))
        self._distinct = NearDuplicates(near_duplicate)
        self._known: list[str] = []
        self._spare: deque[str] = deque()
        self.duplicates = 0

    async def more(self, count: int) -> AsyncGenerator[str, None]:
        """`count` further items, as they come; fewer when the attempts are used up."""
        given = 0
        while given < count:
            if self._spare:
                given += 1
                yield self._spare.popleft()
            elif (attempt := next(self._attempts, None)) is not None:
                await self._ask_for(count - given, attempt)
            else:
                return

    async def _ask_for(self, missing: int, attempt: int) -> None:
        items = await self._ask(missing, self._known, attempt)
        if items is None:
            self._attempts = iter(range(0))
        for text in items or ():
            self._take(text)

    def _take(self, text: str) -> None:
        if self._distinct.add(text):
            self._known.append(text)
            self._spare.append(text)
        else:
            self.duplicates += 1
