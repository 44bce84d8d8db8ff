"""Several models behind the interface of one: who is asked, and who instead when that one is down."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import accumulate
from math import inf

from nat_dpo_pipeline.errors import ConfigurationError, ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, Recalling, late_counter
from nat_dpo_pipeline.generation.replies import ChatReply

# A member whose retries are used up is asked again after this time.
_LEFT_ALONE_SECONDS = 60.0
# Multiples of it, modulo 1, are spread evenly whatever their number (the golden ratio's additive recurrence).
_GOLDEN = 0.6180339887498949


class ModelPool:
    """Chat models of which one answers each call.

    Which one depends on the call alone, not on what happened before it, so that a run that is repeated asks the same
    members. Another member takes over when that one is down, out of credit, or refuses what may not be the fault of
    the request; one that is too long or forbidden is not passed on. Raises ConfigurationError for an empty pool or
    weights that are not above 0.
    """

    def __init__(self, members: Sequence[ChatModel], weights: Sequence[float] | None = None) -> None:
        shares = list(weights) if weights is not None else [1.0] * len(members)
        if not members or len(shares) != len(members) or not all(0 < share < inf for share in shares):
            raise ConfigurationError(
                f"a pool needs models, each with a weight above 0, got {len(members)} and {shares}"
            )
        self.members = tuple(members)
        self._even = weights is None
        self._bounds = [bound / sum(shares) for bound in accumulate(shares)]
        self._down_until = [0.0] * len(members)

    @property
    def name(self) -> str:
        return ", ".join(member.name for member in self.members)

    async def complete(self, call: Call) -> ChatReply:
        """Raises the ModelError of the member that was asked last, `fatal` when no member can answer any more."""
        if (recalled := self._recalled(call)) is not None:
            return recalled
        errors: list[ModelError] = []
        *others, last = self._order(call)
        for index in (*others, last):
            try:
                reply = await self.members[index].complete(replace(call, patient=call.patient and index == last))
            except ModelError as error:
                errors.append(error)
                if not (error.fatal or error.transient or error.may_concern_the_model):
                    break
                # After a refusal that may be the fault of the request the next one is to show whose it is.
                if error.fatal or error.transient:
                    self._down_until[index] = inf if error.fatal else time.monotonic() + _LEFT_ALONE_SECONDS
            except asyncio.CancelledError:
                for asked_before in errors:
                    late_counter()(asked_before)
                raise
            else:
                self._down_until[index] = 0.0
                return replace(reply, passed_over=tuple(errors)) if errors else reply
        raise _summed(errors) from errors[-1]

    def _recalled(self, call: Call) -> ChatReply | None:
        """What is on record, also of a member that stood in for the one that would be asked now."""
        first = self._chosen(_place(call))
        for member in (*self.members[first:], *self.members[:first]):
            if isinstance(member, Recalling) and (reply := member.recall(call)) is not None:
                return reply
        return None

    def _order(self, call: Call) -> list[int]:
        """The member to ask first, then those that take over; those that are down come last."""
        first = self._chosen(_place(call))
        count = len(self.members)
        order = [(first + step) % count for step in range(count)]
        now = time.monotonic()
        return sorted(order, key=lambda index: self._down_until[index] > now)

    def _chosen(self, place: int) -> int:
        if self._even:
            return place % len(self.members)
        point = place * _GOLDEN % 1.0
        return next((index for index, bound in enumerate(self._bounds) if point < bound), len(self._bounds) - 1)


def _summed(errors: Sequence[ModelError]) -> ModelError:
    last = errors[-1]
    # Fatal only if no other member may answer later, which one may that was down for a while.
    may_answer_later = last.transient or (last.fatal and any(error.transient for error in errors))
    is_at_an_end = all(error.fatal for error in errors)
    summed = ModelError(str(last), fatal=is_at_an_end, transient=may_answer_later, concern=last.concern)
    summed.llm = last.llm
    summed.passed_over = tuple(errors[:-1])
    summed.requests = last.requests
    return summed


def _place(call: Call) -> int:
    if call.place is not None:
        return call.place
    conversation = "\x1e".join(f"{message.role}\x1f{message.content}" for message in call.messages[:-1])
    return int.from_bytes(sha256(conversation.encode(errors="surrogatepass")).digest()[:6])
