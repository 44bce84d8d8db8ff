"""A call to a chat model, and whatever answers calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.settings import AS_CONFIGURED, Sampling


class Route(StrEnum):
    """Where a server takes a call; the last two are those of vLLM and SGLang for scalar reward models."""

    CHAT = "chat/completions"
    POOLING = "pooling"
    CLASSIFY = "classify"


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a model.

    `sample` tells apart calls that are equal otherwise and yet are to be made several times, `run` the runs of one
    process over the same input. `place` is where the call stands among its like: a pool picks the member by it, or by
    the conversation so far when it is None. A call that is not `patient` is given up as soon as the model seems to be
    down, because another one can take over. `also` are further samples that are asked for in the same request, see
    together.py.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = AS_CONFIGURED
    sample: int = 0
    run: int = 0
    place: int | None = None
    patient: bool = True
    route: Route = Route.CHAT
    also: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A model that is left alone for `seconds` more, while calls wait for it, and why."""

    llm: str
    seconds: float
    reason: str


class ChatModel(Protocol):
    """Whatever answers calls. `complete` raises ModelError."""

    @property
    def name(self) -> str: ...

    async def complete(self, call: Call) -> ChatReply: ...


@runtime_checkable
class Recalling(Protocol):
    """A model that may have the reply to a call on record."""

    def recall(self, call: Call) -> ChatReply | None: ...


#: Sees what came of every call: a reply, also one without a score, or the error of a call that failed.
OnReply = Callable[[ChatReply | ModelError], None]
_late: ContextVar[OnReply] = ContextVar("late", default=lambda _: None)


@contextmanager
def counting_late(on_reply: OnReply) -> Iterator[None]:
    """Give `on_reply` what comes of calls that are made in here and cancelled: their requests are sent and paid for."""
    token = _late.set(on_reply)
    try:
        yield
    finally:
        # A coroutine that a second Ctrl-C abandoned is closed in another context, where nothing was set.
        with suppress(ValueError):
            _late.reset(token)


def late_counter() -> OnReply:
    """Return what counts the calls of this task that are cancelled."""
    return _late.get()
