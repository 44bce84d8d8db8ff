"""How much a middleware may spend, and what is told of its troubles."""

import logging
import time
from collections import Counter
from math import inf

from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.plugin.middleware_config import BestOfNConfig

logger = logging.getLogger(__name__)

_STEP = "scores"


class Ceiling:
    """Counts sampled calls and what their scoring costs, in the hours that the configuration says."""

    def __init__(self, config: BestOfNConfig) -> None:
        self._config = config.ceiling
        self._prices = config.prices
        self._is_told = False
        self._calls = 0
        self._begin()

    def admits(self) -> bool:
        """Whether another call may be sampled, which is counted then. The first refusal is logged."""
        if self._config is None:
            return True
        if time.monotonic() >= self._ends:
            self._begin()
        if (reached := self._reached()) is None:
            self._calls += 1
            return True
        if not self._is_told:
            self._is_told = True
            logger.warning("best_of_n: the ceiling of %s is reached; calls go straight through", reached)
        return False

    def spent(self, outcome: ChatReply | ModelError) -> None:
        self._record.spent(_STEP, outcome)

    def _begin(self) -> None:
        hours = None if self._config is None else self._config.hours
        self._ends: float = inf if hours is None else time.monotonic() + 3600 * hours
        self._record = GenerationRecord(prices=self._prices)
        self._calls = 0
        self._is_told = False

    def _reached(self) -> str | None:
        config = self._config
        if config is not None and config.calls is not None and self._calls >= config.calls:
            return f"{config.calls} calls"
        cost = self._record.total_cost()
        if config is not None and config.cost is not None and cost is not None and cost >= config.cost:
            return f"a cost of {config.cost:g}"
        return None


class Troubles:
    """Logs the first, the 10th, the 100th … of each kind of trouble, in a line each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def note(self, what: str, error: BaseException | None = None) -> None:
        self._counts[what] += 1
        count = self._counts[what]
        if str(count).rstrip("0") == "1":
            why = "" if error is None else f": {type(error).__name__}: {' '.join(str(error).split()):.300}"
            logger.warning("best_of_n: %s (%d so far)%s", what, count, why)
