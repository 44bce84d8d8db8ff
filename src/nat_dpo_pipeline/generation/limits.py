"""A model's limits, kept: calls at once, requests and tokens a minute, cool-down after a 429, retries.

The model cools down as a whole: one 429 holds back every caller, instead of each burning its retries. A 429 says
"later", so it does not count as a retry, only against the wall-clock ceiling.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from math import inf

from aiolimiter import AsyncLimiter

from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel
from nat_dpo_pipeline.generation.replies import ChatReply, Usage

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0
# A model that says that it is asked too much gets half as much, one whose server fails now and then three quarters.
_THROTTLED, _OVERLOADED = 0.5, 0.75
_GROWTH = 2.0
# What a call is taken to need until some are known: its reply, and the characters of its prompt that make a token.
_REPLY_TOKENS, _CHARACTERS_A_TOKEN = 256, 4
_RETRIES_BEFORE_FIRST_ANSWER = 2
# So many failed requests without an answer in between are the model's trouble, not that of the calls.
_DOWN_AFTER = 10
# For a call that is told to wait for ever while others are answered.
_MOST_REQUESTS = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model may be asked. None is no limit. Times are in seconds.

    `max_retries` counts failures of one call other than 429, and is at most 2 until the model has answered once: one
    that never did is more likely misnamed than busy. Pauses double from `first_pause_seconds` to a minute. While the
    model seems to be down (10 requests failed and none was answered) its calls wait and use up no retries. A model that
    answers nobody for `max_wait_seconds` while a call is tried, or wants to be left alone for longer, ends.
    """

    max_concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: int | None = None
    max_retries: int = 8
    first_pause_seconds: float = 1.0
    max_wait_seconds: float = 1800.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (value > 0 or (name == "max_retries" and value == 0)):
                least = "at least" if name == "max_retries" else "above"
                raise ConfigurationError(f"{name} must be {least} 0, got {value!r}")


class Slots:
    """How many calls may be under way: fewer when the model is asked too much, then more again with every success."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._shrunk_at = 0.0
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        return int(self._limit)

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[None, None]:
        await self._taken()
        try:
            yield
        finally:
            self._given_back()

    async def _taken(self) -> None:
        if self._under_way < self.limit and not self._waiting:
            self._under_way += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place  # which was counted by whoever gave it
        except asyncio.CancelledError:
            if place.cancelled():
                with suppress(ValueError):
                    self._waiting.remove(place)
            else:
                self._given_back()
            raise

    def _given_back(self) -> None:
        self._under_way -= 1
        while self._waiting and self._under_way < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._under_way += 1
                place.set_result(None)

    def shrink(self, share: float, sent_at: float) -> None:
        """To a share of what it was; not for a call that was sent before the last time, which says nothing new."""
        if sent_at >= self._shrunk_at:
            self._shrunk_at = time.monotonic()
            self._limit = max(1.0, self._limit * share)

    def grow(self) -> None:
        """By two when as many calls as may be under way have succeeded."""
        self._limit = min(float(self._most), self._limit + _GROWTH / self._limit)


class LimitedModel:
    """A chat model that is asked no more than its limits allow, and again when a call may succeed later."""

    def __init__(self, model: ChatModel, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self._slots = Slots(limits.max_concurrency)
        self._pace = _Pace(limits)
        self._cooling = _CoolDown(limits.first_pause_seconds)
        self._broken: ModelError | None = None
        self._ended = asyncio.Event()
        self._has_answered = False
        self._answered_at = 0.0
        self._failed_in_a_row = 0

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, call: Call) -> ChatReply:
        """Raises ModelError when retries are used up, and at once for a model that has ended."""
        tries = _Tries()
        while True:
            try:
                reply = await self._once(call, tries)
            except ModelError as error:
                tries.requests += error.requests
                ended = self._ended_by(error, tries)
                pause = None if ended else self._pause_after(error, call, tries)
                if pause is None:
                    final = ended or error
                    final.requests = tries.requests
                    raise final from error.__cause__
                logger.info("%s; next try in %.1f s", error, max(pause, self._cooling.left()))
            else:
                return replace(reply, retries=tries.requests) if tries.requests else reply
            await asyncio.sleep(pause)

    def _pause_after(self, error: ModelError, call: Call, tries: "_Tries") -> float | None:
        """Seconds until the next try, besides a cool-down; None when there is none."""
        if not error.transient or (self._seems_down and not call.patient) or tries.requests >= _MOST_REQUESTS:
            return None
        if error.throttled or (self._seems_down and self._has_answered):
            return 0.0  # it is not about this call, and the cool-down holds all of them back
        tries.failures += 1
        most = self._limits.max_retries
        allowed = most if self._has_answered else min(most, _RETRIES_BEFORE_FIRST_ANSWER)
        return None if tries.failures > allowed else _backoff(tries.failures, self._limits.first_pause_seconds)

    def _ended_by(self, error: ModelError, tries: "_Tries") -> ModelError | None:
        """The error that ends the model when this one shows that waiting is of no use any more."""
        longest = self._limits.max_wait_seconds
        left = self._cooling.left()
        waits = error.throttled or self._seems_down
        since = max(tries.first_sent_at, self._answered_at)
        if waits and (left > longest or time.monotonic() + left > since + longest):
            reason = f"and would have to be left alone for {left:.0f} s more; max_wait_seconds is {longest:g}"
        elif self._seems_down and not self._has_answered:
            reason = f"{self._failed_in_a_row} times in a row, and never anything else"
        else:
            return None
        self._end(self._error(f"{error}, {reason}", fatal=True))
        return self._error(str(self._broken), fatal=True)

    def _end(self, error: ModelError) -> None:
        self._broken = self._broken or error
        self._ended.set()

    @property
    def _seems_down(self) -> bool:
        return self._failed_in_a_row >= _DOWN_AFTER

    async def _once(self, call: Call, tries: "_Tries") -> ChatReply:
        async with self._slots.one():
            booked = await self._its_turn(call)
            if self._broken is not None:
                raise self._error(str(self._broken), fatal=True)
            sent_at = time.monotonic()
            tries.first_sent_at = min(tries.first_sent_at, sent_at)
            try:
                reply = await self._model.complete(call)
            except ModelError as error:
                error.llm, error.requests = self.name, int(not error.unsent)
                self._note(error, sent_at)
                self._pace.used(booked, 0)
                raise
        self._has_answered = True
        self._answered_at = time.monotonic()
        self._failed_in_a_row = 0
        self._slots.grow()
        self._cooling.reset()
        self._pace.answered(booked, reply.usage)
        return reply

    async def _its_turn(self, call: Call) -> float:
        """Wait until the call may be sent; gives the tokens that are booked for it."""
        booked = 0.0
        while self._broken is None:
            if self._cooling.left() and self._seems_down and not call.patient:
                raise self._error(f"model {self.name!r} seems to be down", transient=True)
            while (left := self._cooling.left()) and self._broken is None:  # a 429 may prolong it meanwhile
                await self._rest(left)
            self._pace.used(booked, 0)
            booked = await self._pace.turn(call)
            # A cool-down that began meanwhile must not end in a burst of all that had their turn before it.
            if not self._cooling.left():
                break
        return booked

    async def _rest(self, seconds: float) -> None:
        """Wait, but not for a model that ends meanwhile."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)

    def _error(self, message: str, *, fatal: bool = False, transient: bool = False) -> ModelError:
        error = ModelError(message, fatal=fatal, transient=transient)
        error.llm = self.name
        return error

    def _note(self, error: ModelError, sent_at: float) -> None:
        if error.fatal:
            self._end(error)
        elif error.throttled:
            self._cooling.begin(sent_at, error.retry_after)
            self._slots.shrink(_THROTTLED, sent_at)
        elif error.transient:
            self._failed_in_a_row += 1
            if self._seems_down and self._has_answered:
                self._cooling.begin(sent_at, None)
            if error.overloaded:
                self._slots.shrink(_OVERLOADED, sent_at)


@dataclass(slots=True)
class _Tries:
    """What became of one call so far; waiting for our own pace before it is sent counts for nothing."""

    failures: int = 0
    requests: int = 0
    first_sent_at: float = inf


class _CoolDown:
    """The time until which a model is left alone."""

    def __init__(self, first_pause: float) -> None:
        self.until = 0.0
        self._first_pause = first_pause
        self._began = 0.0
        self._in_a_row = 0

    def begin(self, sent_at: float, retry_after: float | None) -> None:
        """Start or prolong it; calls that were under way when it started count as one with the first."""
        now = time.monotonic()
        if sent_at >= self._began:
            self._began = now
            self._in_a_row += 1
        pause = _backoff(self._in_a_row, self._first_pause) if retry_after is None else retry_after
        self.until = max(self.until, now + pause)

    def reset(self) -> None:
        self._in_a_row = 0

    def left(self) -> float:
        return max(self.until - time.monotonic(), 0.0)


class _Pace:
    """Requests and tokens a minute. What a call needs is booked before it is sent, and put right when it is known."""

    def __init__(self, limits: Limits) -> None:
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        # One request an interval: a bucket of a minute's requests would let twice as many through in the first minute.
        self._requests = None if requests is None else AsyncLimiter(1, 60 / requests)
        self._tokens = None if tokens is None else AsyncLimiter(tokens / 6, 10)
        self._owed = 0.0
        self._reply_tokens = float(_REPLY_TOKENS)

    async def turn(self, call: Call) -> float:
        """Wait for the call's turn; gives the tokens that are booked for it."""
        booked = 0.0
        if self._tokens is not None:
            characters = sum(len(message.content) for message in call.messages)
            booked = characters / _CHARACTERS_A_TOKEN + self._reply_tokens
            self._owed += booked
            await self._pay(self._tokens)
        if self._requests is not None:
            await self._requests.acquire()
        return booked

    def answered(self, booked: float, usage: Usage) -> None:
        self._reply_tokens += (usage.completion_tokens - self._reply_tokens) / 8
        self.used(booked, usage.prompt_tokens + usage.completion_tokens)

    def used(self, booked: float, tokens: int) -> None:
        if self._tokens is not None:
            self._owed += tokens - booked

    async def _pay(self, limiter: AsyncLimiter) -> None:
        while self._owed > 0:
            part = min(self._owed, limiter.max_rate)
            self._owed -= part
            await limiter.acquire(part)


def _backoff(failures: int, first_pause: float) -> float:
    """Seconds before try number `failures` + 1: doubling, with jitter so that callers do not come back together."""
    longest: float = min(first_pause * 2 ** (failures - 1), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - not for cryptography
