"""What the steps of the recipe that ask a model have in common: how a call is made up, and that it is recorded."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from nat_dpo_pipeline.core.endings import Ending, shown
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.refusals import is_refusal
from nat_dpo_pipeline.errors import ModelError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, counting_late
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.settings import RecipeSettings, Sampling, StepName
from nat_dpo_pipeline.generation.steps import Item
from nat_dpo_pipeline.generation.turns import Flaw

_BY_ENDING = {
    Ending.FILTERED: Flaw.FILTERED,
    Ending.TOOL_CALLS: Flaw.TOOL_CALL,
    Ending.GIVEN_UP: Flaw.UNKNOWN_ENDING,  # a model of the user's own, which should have raised an error
    Ending.UNKNOWN: Flaw.UNKNOWN_ENDING,
}
_MARKS = " .,;:!?…'\"`*_"


class Asking:
    """Asks models for one run, as the settings of each step have it."""

    def __init__(self, settings: RecipeSettings, record: GenerationRecord) -> None:
        self._settings = settings
        self._record = record

    async def _reply(self, step: StepName, model: ChatModel, call: Call) -> ChatReply:
        try:
            with counting_late(partial(self._record.spent, step)):
                reply = await model.complete(call)
        except ModelError as error:
            self._record.spent(step, error)
            raise
        self._record.spent(step, reply)
        if reply.ending is Ending.UNKNOWN:
            self._record.counts[f"finish_reason_{shown(reply.finish_reason or '')}"] += 1
        return reply

    def _sampling(self, step: StepName, number: int, temperature: float | None) -> Sampling:
        """How the call that is number `number` among its equals is sampled."""
        own = self._settings.sampling.of(step)
        seed = self._settings.seed if own.seed is None else own.seed
        return own.of_call(temperature, None if seed is None else seed + number)

    def _temperatures(self, step: StepName) -> Sequence[float]:
        return self._settings.sampling.of(step).temperatures


def call_of(item: Item[Any], messages: tuple[Message, ...], sampling: Sampling, number: int, attempt: int) -> Call:
    """The call that is number `number` among its equals. In a pool the next attempt is another member's."""
    run = getattr(item.root.value, "run", 0)
    return Call(messages, sampling, sample=number, run=run, place=sum(item.path) + attempt)


def flaw_of(text: str, reply: ChatReply) -> Flaw | None:
    """Return why `text`, which is the answer of a reply or a part of it, is no whole answer."""
    if reply.not_text:
        return Flaw.CONTENT_NOT_TEXT
    if (flaw := _BY_ENDING.get(reply.ending)) is not None:
        return flaw
    if reply.refused or is_refusal(text):
        return Flaw.REFUSAL
    if not text and reply.has_only_thoughts:
        return Flaw.ONLY_THOUGHTS
    if reply.ending is Ending.CUT:
        return Flaw.TRUNCATED
    return None if text else Flaw.EMPTY


def why_silent(reply: ChatReply) -> Flaw | None:
    """Return why a reply has no text, when the same call would end alike; None when it has text or is merely empty."""
    flaw = None if reply.text.strip() else flaw_of("", reply)
    return None if flaw is Flaw.EMPTY else flaw


def told_of(flaw: Flaw | None, reply: ChatReply) -> str | None:
    """Return what the server said that the flaw follows from."""
    if flaw is Flaw.CONTENT_NOT_TEXT:
        return f"the content holds {', '.join(reply.not_text)}"
    if flaw in (None, Flaw.EMPTY, Flaw.REFUSAL) or reply.finish_reason is None:
        return None
    return f"finish_reason {shown(reply.finish_reason)!r}"


def nth(values: Sequence[float], number: int) -> float | None:
    return values[number % len(values)] if values else None


def folded(text: str) -> str:
    """Equal for texts that differ in white space, in case, or in the marks at their ends only."""
    plain = " ".join(text.split()).casefold()
    return plain.strip(_MARKS) or plain
