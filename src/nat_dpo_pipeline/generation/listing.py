"""A list of exactly so many items from a model that repeats itself, stops early, or answers something else."""

from collections.abc import Awaitable, Callable, Sequence

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
        self._spare: list[str] = []
        self.duplicates = 0

    async def more(self, count: int) -> list[str]:
        """`count` further items; fewer when the attempts are used up."""
        while len(self._spare) < count and (attempt := next(self._attempts, None)) is not None:
            items = await self._ask(count - len(self._spare), self._known, attempt)
            if items is None:
                self._attempts = iter(range(0))
            for text in items or ():
                self._take(text)
        taken, self._spare = self._spare[:count], self._spare[count:]
        return taken

    def _take(self, text: str) -> None:
        if self._distinct.add(text):
            self._known.append(text)
            self._spare.append(text)
        else:
            self.duplicates += 1
