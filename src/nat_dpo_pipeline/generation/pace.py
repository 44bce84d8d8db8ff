"""Pace of a model: calls in flight, requests and tokens a minute, and cool-downs."""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from aiolimiter import AsyncLimiter

from nat_dpo_pipeline.generation.chat import Call
from nat_dpo_pipeline.generation.replies import Usage

_LONGEST_PAUSE = 60.0
_GROWTH = 2.0
# What a call is taken to need until some are known: its reply, and the characters of its prompt that make a token.
_REPLY_TOKENS, _CHARACTERS_A_TOKEN = 256, 4


class Slots:
    """Calls in flight at most: fewer when the model is overloaded, then more again with every success."""

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


class CoolDown:
    """The time until which a model is left alone, and why."""

    def __init__(self, first_pause: float) -> None:
        self.reason = ""
        self._until = 0.0
        self._first_pause = first_pause
        self._began = 0.0
        self._in_a_row = 0

    def begin(self, sent_at: float, delay: float | None, reason: str) -> None:
        """Start or prolong it; calls that were under way when it started count as one with the first."""
        now = time.monotonic()
        if sent_at >= self._began:
            self._began = now
            self._in_a_row += 1
        until = now + (backoff(self._in_a_row, self._first_pause) if delay is None else delay)
        if until > self._until:
            self._until, self.reason = until, reason

    def reset(self) -> None:
        self._in_a_row = 0

    def left(self) -> float:
        return max(self._until - time.monotonic(), 0.0)


class Pace:
    """Requests and tokens a minute. What a call needs is booked before it is sent, and put right when it is known."""

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        # One request an interval: a bucket of a minute's requests would let twice as many through in the first minute.
        self._requests = None if requests_per_minute is None else AsyncLimiter(1, 60 / requests_per_minute)
        self._tokens = None if tokens_per_minute is None else AsyncLimiter(tokens_per_minute / 6, 10)
        self._owed = 0.0
        self._reply_tokens = float(_REPLY_TOKENS)

    async def turn(self, call: Call) -> float:
        """Wait for the call's turn; gives the tokens that are booked for it."""
        booked = 0.0
        if self._tokens is not None:
            booked = prompt_tokens(call) + self._reply_tokens * (1 + len(call.also))
            self._owed += booked
            await self._pay(self._tokens)
        if self._requests is not None:
            await self._requests.acquire()
        return booked

    def answered(self, booked: float, usages: Sequence[Usage]) -> None:
        """Put right what was booked for a request; where the server does not count tokens the estimate stands."""
        if not any(usage.is_reported for usage in usages):
            return
        for usage in usages:
            self._reply_tokens += (usage.completion_tokens - self._reply_tokens) / 8
        self.used(booked, sum(usage.prompt_tokens + usage.completion_tokens for usage in usages))

    def used(self, booked: float, tokens: int) -> None:
        if self._tokens is not None:
            self._owed += tokens - booked

    async def _pay(self, limiter: AsyncLimiter) -> None:
        while self._owed > 0:
            part = min(self._owed, limiter.max_rate)
            self._owed -= part
            await limiter.acquire(part)


def prompt_tokens(call: Call) -> float:
    """About how many tokens the prompt of a call has."""
    return sum(len(message.content) for message in call.messages) / _CHARACTERS_A_TOKEN


def backoff(failures: int, first_pause: float) -> float:
    """Seconds before try number `failures` + 1: doubling, with jitter so that callers do not come back together."""
    longest: float = min(first_pause * 2 ** (failures - 1), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - not for cryptography
