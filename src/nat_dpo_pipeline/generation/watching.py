"""Watch over a scorer: one whose replies cannot be read ends, one that tells nothing apart is reported."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nat_dpo_pipeline.errors import ModelError, ParseError

logger = logging.getLogger(__name__)

#: So many replies without a score, and so many different responses with one score, are no chance any more.
FIRST_SCORES = 8


@dataclass(slots=True)
class FirstScores:
    """The scores of the first different responses."""

    by_response: dict[str, float] = field(default_factory=dict)

    def add(self, response: str, value: float) -> bool:
        """Return whether there are FIRST_SCORES of them now, and were not before."""
        if response in self.by_response or len(self.by_response) == FIRST_SCORES:
            return False
        self.by_response[response] = value
        return len(self.by_response) == FIRST_SCORES

    @property
    def is_one(self) -> bool:
        return len(set(self.by_response.values())) == 1

    @property
    def at_bounds(self) -> int:
        """Number of scores at 0 or 1, the ends of a sigmoid or softmax."""
        return sum(value in (0.0, 1.0) for value in self.by_response.values())


class ScorerWatch:
    """State of one scorer. `ended` holds the reason why the scorer is not asked any more."""

    def __init__(self) -> None:
        self.ended: str | None = None
        self.first = FirstScores()
        self._unread: list[str] | None = []
        self._reading = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None, None]:
        """Ask and read within the block, which raises ParseError for a reply without a score.

        Until one has a score no more than FIRST_SCORES are asked for, so that a model that is no scorer costs no more.
        Raises the ModelError that ended the scorer, and ends it when none of so many replies has a score.
        """
        await self._its_turn()
        try:
            yield
        except ParseError as error:
            if (why := self._why_ended(error)) is not None:
                raise self.end(why) from error
            raise
        else:
            self._unread = None
        finally:
            self._reading -= 1
            async with self._changed:
                self._changed.notify_all()

    async def _its_turn(self) -> None:
        if self._may_not_ask():
            async with self._changed:
                await self._changed.wait_for(lambda: not self._may_not_ask())
        if self.ended is not None:
            raise self.end(self.ended)
        self._reading += 1

    def _may_not_ask(self) -> bool:
        is_unknown = self.ended is None and self._unread is not None
        return is_unknown and self._reading + len(self._unread or ()) >= FIRST_SCORES

    def _why_ended(self, error: ParseError) -> str | None:
        """Why the scorer ends with this error, when it is the last of the first replies and none had a score."""
        if self._unread is None:
            return None
        self._unread.append(str(error))
        if len(self._unread) != FIRST_SCORES:
            return None
        ((reason, _),) = Counter(self._unread).most_common(1)
        return f"the scorer could not read any of the first {FIRST_SCORES} replies: {reason}"

    def end(self, why: str) -> ModelError:
        """Return the error that ends the scorer, a new one each time: one that is raised again keeps all tracebacks."""
        self.ended = why
        return ModelError(why, fatal=True)

    def scored(self, response: str, value: float, model: str) -> None:
        """Warn once of a scorer that gives all responses one score."""
        if self.first.add(response, value) and self.first.is_one:
            logger.warning(
                "%s gives %g to each of the first %d responses: such scores tell nothing apart; check the scorer, its "
                "criteria and its scale",
                model,
                value,
                FIRST_SCORES,
            )
