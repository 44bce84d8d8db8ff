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

from aiolimiter import AsyncLimiter

from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, ChatReply, Usage

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0
# A model that says that it is asked too much gets half as much, one whose server fails now and then three quarters.
_THROTTLED, _OVERLOADED = 0.5, 0.75
_GROWTH = 2.0
# What a call is taken to need until some are known: its reply, and the characters of its prompt that make a token.
_REPLY_TOKENS, _CHARACTERS_A_TOKEN = 256, 4
_RETRIES_BEFORE_FIRST_ANSWER = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model may be asked. None is no limit. Times are in seconds.

    `max_retries` counts failures of one call other than 429, and is at most 2 until the model has answered once: one
    that never did is more likely misnamed than busy. Pauses double from `first_pause_seconds` to a minute.
    `max_wait_seconds` bounds one call with all its waiting.
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
        self._has_answered = False

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, call: Call) -> ChatReply:
        """Raises ModelError when retries or time are used up, and at once for a model that a fatal error ended."""
        deadline = time.monotonic() + self._limits.max_wait_seconds
        failures = requests = 0
        while True:
            try:
                reply = await self._once(call, deadline)
            except ModelError as error:
                failures += not error.throttled
                requests += error.requests
                pause = 0.0 if error.throttled else _backoff(failures, self._limits.first_pause_seconds)
                out_of_time = max(time.monotonic() + pause, self._cooling.until) > deadline
                if not error.transient or failures > self._retries() or out_of_time:
                    error.requests = requests
                    raise
                logger.info("%s; next try in %.1f s", error, max(pause, self._cooling.left()))
            else:
                return replace(reply, retries=requests) if requests else reply
            await asyncio.sleep(pause)

    def _retries(self) -> int:
        most = self._limits.max_retries
        return most if self._has_answered else min(most, _RETRIES_BEFORE_FIRST_ANSWER)

    async def _once(self, call: Call, deadline: float) -> ChatReply:
        async with self._slots.one():
            booked = await self._its_turn(call, deadline)
            if self._broken is not None:
                raise self._error(str(self._broken), fatal=True)
            sent_at = time.monotonic()
            try:
                reply = await self._model.complete(call)
            except ModelError as error:
                error.llm, error.requests = self.name, 1
                self._note(error, sent_at)
                self._pace.used(booked, 0)
                raise
        self._has_answered = True
        self._slots.grow()
        self._cooling.reset()
        self._pace.answered(booked, reply.usage)
        return reply

    async def _its_turn(self, call: Call, deadline: float) -> float:
        """Wait until the call may be sent; gives the tokens that are booked for it."""
        booked = 0.0
        while True:
            await self._cooled_down(deadline)
            self._pace.used(booked, 0)
            booked = await self._pace.turn(call)
            # A cool-down that began meanwhile must not end in a burst of all that had their turn before it.
            if not self._cooling.left():
                return booked

    async def _cooled_down(self, deadline: float) -> None:
        while left := self._cooling.left():  # a 429 may prolong it meanwhile
            if self._cooling.until > deadline:
                raise self._error(
                    f"model {self.name!r} asked to be left alone for {left:.0f} s more, which is longer than a call "
                    f"may take ({self._limits.max_wait_seconds:g} s)",
                    transient=True,
                )
            await asyncio.sleep(left)

    def _error(self, message: str, *, fatal: bool = False, transient: bool = False) -> ModelError:
        error = ModelError(message, fatal=fatal, transient=transient)
        error.llm = self.name
        return error

    def _note(self, error: ModelError, sent_at: float) -> None:
        if error.fatal:
            self._broken = error
        elif error.throttled:
            self._cooling.begin(sent_at, error.retry_after)
            self._slots.shrink(_THROTTLED, sent_at)
        elif error.overloaded:
            self._slots.shrink(_OVERLOADED, sent_at)


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
