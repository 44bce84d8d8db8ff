"""A model's limits, kept: calls at once, requests and tokens a minute, cool-down after a 429, retries.

The model cools down as a whole: one 429 holds back every caller, instead of each burning its retries. A 429 says
"later", so it does not count as a retry, only against the wall-clock ceiling.
"""

import asyncio
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import inf

from nat_dpo_pipeline.errors import Concern, ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, Waiting, late_counter
from nat_dpo_pipeline.generation.pace import CoolDown, Pace, Slots, backoff, prompt_tokens
from nat_dpo_pipeline.generation.probing import Refusals, about_itself, end_shown_by, harmless, instead_of
from nat_dpo_pipeline.generation.replies import ChatReply

logger = logging.getLogger(__name__)

# A model that says that it is asked too much gets half as much, one whose server fails now and then three quarters.
_THROTTLED, _OVERLOADED = 0.5, 0.75
_RETRIES_BEFORE_FIRST_ANSWER = 2
# So many failed requests without an answer in between are the model's trouble, not that of the calls.
_DOWN_AFTER = 10
# For a call that is told to wait for ever while others are answered.
_MOST_REQUESTS = 200
_MOST_MODELS_NAMED = 10
# What differs between failures for one reason: quoted parts, and words with a digit, such as counts and request ids.
_VARYING = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\S*\d\S*""")
_COMPARED = 200


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


class LimitedModel:
    """A chat model that is asked no more than its limits allow, and again when a call may succeed later.

    `served` gives the names of the models that the server has; it is asked once, when the model never answered.
    `unrecorded` is the model without a journal, for the questions that are asked only to learn what a refusal concerns.
    """

    def __init__(
        self,
        model: ChatModel,
        limits: Limits,
        served: Callable[[], Awaitable[Sequence[str]]] | None = None,
        unrecorded: ChatModel | None = None,
    ) -> None:
        self._model = model
        self._unrecorded = model if unrecorded is None else unrecorded
        self._limits = limits
        self._served = served
        self._slots = Slots(limits.max_concurrency)
        self._pace = Pace(limits.requests_per_minute, limits.tokens_per_minute)
        self._cooling = CoolDown(limits.first_pause_seconds)
        self._refusals = Refusals()
        self._probing = asyncio.Lock()
        self._broken: ModelError | None = None
        self._ended = asyncio.Event()
        self._resting = 0
        self._has_answered = False
        self._answered_at = 0.0
        self._failed_in_a_row = 0
        self._failures: deque[ModelError] = deque(maxlen=_DOWN_AFTER)
        self._listing = asyncio.Lock()
        self._there: str | None = None

    @property
    def name(self) -> str:
        return self._model.name

    def waiting(self) -> Waiting | None:
        """Return the current cool-down of the model; None when no call waits for one."""
        left = self._cooling.left()
        return Waiting(self.name, left, self._cooling.reason) if left and self._resting else None

    async def complete(self, call: Call) -> ChatReply:
        """Raises ModelError when retries are used up, and at once for a model that has ended."""
        tries = _Tries()
        try:
            return await self._until_answered(call, tries)
        except asyncio.CancelledError:
            if tries.requests:
                failed = self._error("interrupted")
                failed.requests = tries.requests
                late_counter()(failed)
            raise

    async def _until_answered(self, call: Call, tries: "_Tries") -> ChatReply:
        while True:
            try:
                reply = await self._once(call, tries)
            except ModelError as error:
                if (end := self._end_shown_by(error, tries)) is not None:
                    self._end(end)
                pause = None if end is not None else self._pause_after(error, call, tries)
                if pause is None:
                    final = await self._final(error, tries, has_ended=end is not None)
                    final.requests = tries.requests
                    raise final from error.__cause__
                logger.info("%s; next try in %.1f s", error, max(pause, self._cooling.left()))
            else:
                return replace(reply, retries=reply.retries + tries.requests) if tries.requests else reply
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
        return None if tries.failures > allowed else backoff(tries.failures, self._limits.first_pause_seconds)

    def _end_shown_by(self, error: ModelError, tries: "_Tries") -> ModelError | None:
        """The error that ends the model, when this one shows that asking it is of no use any more."""
        if error.fatal:
            return error
        longest = self._limits.max_wait_seconds
        left = self._cooling.left()
        waits = error.throttled or self._seems_down
        since = max(tries.first_sent_at, self._answered_at)
        if waits and (left > longest or time.monotonic() + left > since + longest):
            reason = f"and would have to be left alone for {left:.0f} s more; max_wait_seconds is {longest:g}"
            return self._error(f"{error}, {reason}", fatal=True)
        if self._seems_down and not self._has_answered:
            usual, count = _most_frequent(self._failures)
            reason = f"{count} of the last {len(self._failures)} requests, and none was answered"
            return self._error(f"{usual}, {reason}", fatal=True, overloaded=usual.overloaded)
        return None

    def _end(self, error: ModelError) -> None:
        self._broken = self._broken or error
        self._ended.set()

    async def _final(self, error: ModelError, tries: "_Tries", *, has_ended: bool) -> ModelError:
        """The error as a caller gets it. All get that which ended the model, and those of a model that never answered
        the most frequent one, with what the server has: its name may be wrong.
        """
        if has_ended and self._broken is not None:
            usual = self._broken
        elif error.transient and self._failures and not self._has_answered:
            usual, _ = _most_frequent(self._failures)
        else:
            return error
        may_be_misnamed = usual.overloaded or usual.concern is Concern.NAME
        hint = await self._models_there(tries) if may_be_misnamed and not self._has_answered else ""
        return self._error(f"{usual}{hint}", fatal=has_ended, transient=not has_ended)

    async def _models_there(self, tries: "_Tries") -> str:
        """Return a hint with the models that the server lists; the server is asked once."""
        async with self._listing:
            if self._there is None:
                names = [] if self._served is None else list(await self._served())
                tries.requests += self._served is not None
                more = ", …" if len(names) > _MOST_MODELS_NAMED else ""
                listed = ", ".join(map(repr, names[:_MOST_MODELS_NAMED]))
                self._there = f"; the server has {listed}{more}" if names else ""
        return self._there

    @property
    def _seems_down(self) -> bool:
        return self._failed_in_a_row >= _DOWN_AFTER

    async def _once(self, call: Call, tries: "_Tries") -> ChatReply:
        async with self._slots.one():
            try:
                return await self._sent(self._model, call, tries)
            except ModelError as error:
                if error.fatal or not error.may_concern_the_model:
                    raise
                # In its slot, so that few others are sent to a model that is at an end.
                found = await self._told_apart(error, call, tries)
                if found is error:
                    raise
                raise found from error.__cause__

    async def _sent(self, model: ChatModel, call: Call, tries: "_Tries") -> ChatReply:
        booked = await self._its_turn(call)
        if self._broken is not None:
            raise self._error(str(self._broken), fatal=True)
        sent_at = time.monotonic()
        tries.first_sent_at = min(tries.first_sent_at, sent_at)
        try:
            reply = await model.complete(call)
        except ModelError as error:
            error.llm = self.name
            tries.requests += not error.unsent
            self._note(error, sent_at)
            self._pace.used(booked, 0)
            raise
        self._has_answered = True
        self._answered_at = time.monotonic()
        self._failed_in_a_row = 0
        self._refusals.answered(call)
        self._slots.grow()
        self._cooling.reset()
        self._pace.answered(booked, [one.usage for one in (reply, *reply.others)])
        return reply

    async def _told_apart(self, error: ModelError, call: Call, tries: "_Tries") -> ModelError:
        """Return a refusal as what it is found to be: the end of the model, or about the request alone."""
        async with self._probing:
            if self._broken is not None:
                return instead_of(error, str(self._broken), fatal=True)
            if in_a_row := self._refusals.add(call, error.concern):
                try:
                    await self._sent(self._unrecorded, harmless(call), tries)
                except ModelError as probed:
                    end = end_shown_by(probed, error, in_a_row)
                    if end is not None:
                        self._end(end)
                    return end or error
                tries.requests += 1
                self._refusals.clear(call, error.concern)
            is_cleared = self._refusals.is_cleared(call, error.concern)
        return about_itself(error) if is_cleared else error

    async def _its_turn(self, call: Call) -> float:
        """Wait until the call may be sent; gives the tokens that are booked for it."""
        self._refuse_what_never_fits(call)
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

    def _refuse_what_never_fits(self, call: Call) -> None:
        most, needed = self._limits.tokens_per_minute, prompt_tokens(call)
        if most is not None and needed > most:
            raise self._error(
                f"model {self.name!r} is not asked: the prompt has about {needed:.0f} tokens, which is more than "
                f"tokens_per_minute ({most}) allows in a whole minute: raise it, or shorten the prompt"
            )

    async def _rest(self, seconds: float) -> None:
        """Wait, but not for a model that ends meanwhile."""
        self._resting += 1
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), seconds)
        finally:
            self._resting -= 1

    def _error(
        self,
        message: str,
        *,
        fatal: bool = False,
        transient: bool = False,
        overloaded: bool = False,
    ) -> ModelError:
        error = ModelError(message, fatal=fatal, transient=transient, overloaded=overloaded)
        error.llm = self.name
        return error

    def _note(self, error: ModelError, sent_at: float) -> None:
        if error.throttled:
            self._cooling.begin(sent_at, error.retry_after, str(error))
            self._slots.shrink(_THROTTLED, sent_at)
        elif error.transient:
            self._failed_in_a_row += 1
            self._failures.append(error)
            if self._seems_down and self._has_answered:
                self._cooling.begin(sent_at, None, str(error))
            if error.overloaded:
                self._slots.shrink(_OVERLOADED, sent_at)


@dataclass(slots=True)
class _Tries:
    """What became of one call so far; waiting for our own pace before it is sent counts for nothing."""

    failures: int = 0
    requests: int = 0
    first_sent_at: float = inf


def _alike(message: str) -> str:
    """Equal for messages that differ in numbers and quoted parts only."""
    return _VARYING.sub("", message)[:_COMPARED]


def _most_frequent(errors: Sequence[ModelError]) -> tuple[ModelError, int]:
    """The last of the errors that are alike most often, and how often that is."""
    by_message = {_alike(str(error)): error for error in errors}
    message, count = Counter(_alike(str(error)) for error in errors).most_common(1)[0]
    return by_message[message], count
