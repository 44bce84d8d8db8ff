"""What the models under a call of a function were asked, read from the steps of their calls."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from nat.plugin_api import Context

from nat_dpo_pipeline.core.messages import Message, Prompt, messages_of
from nat_dpo_pipeline.core.rendering import render_prompt
from nat_dpo_pipeline.core.said import get
from nat_dpo_pipeline.errors import CandidateRefused
from nat_dpo_pipeline.plugin.nat_api import IntermediateStep, IntermediateStepPayload, IntermediateStepType

# NAT calls its subscribers in the context of whoever pushes a step, and tasks and threads inherit that of the call.
_WATCHING: ContextVar[tuple["SeenPrompts", ...]] = ContextVar("watching", default=())


class SeenPrompts:
    """The prompts of the calls of models that are made while this is watching, in this context and those below."""

    def __init__(self) -> None:
        self._prompts: dict[str, Prompt | None] = {}
        self._models: dict[str, str | None] = {}
        self._outputs: dict[str, str] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        token = _WATCHING.set((*_WATCHING.get(), self))
        subscription = Context.get().intermediate_step_manager.subscribe(self._see)
        try:
            yield
        finally:
            subscription.unsubscribe()
            _WATCHING.reset(token)

    def first(self) -> Prompt | None:
        """Return that of the first call; None without one, or where it cannot be read."""
        return next(iter(self._prompts.values()), None)

    def behind(self, response: str) -> Prompt | None:
        """That of the last call whose reply is the response, word for word."""
        wrote = self._wrote(response)
        return self._prompts.get(wrote[-1]) if wrote else None

    def rollout(self, prompt: Prompt, response: str) -> list[Message] | None:
        """Return all that was said after the prompt, calls and results of tools among it, up to the response.

        None where nothing but the response was said, or where its model was asked something else.
        """
        last, asked = self.behind(response), messages_of(prompt)
        said = () if last is None else messages_of(last)
        after = said[len(asked) :]
        if not after or said[: len(asked)] != asked or after[0].role != "assistant":
            return None
        return [*after, Message("assistant", response)]

    def model_behind(self, response: str) -> str | None:
        """The model of that call; of the last call of all where no reply is the response."""
        called = self._wrote(response) or list(self._models)
        return self._models.get(called[-1]) if called else None

    def _wrote(self, response: str) -> list[str]:
        return [uuid for uuid, output in self._outputs.items() if output.strip() == response.strip()]

    def _see(self, step: IntermediateStep) -> None:
        payload = step.payload
        if self not in _WATCHING.get():
            return
        if payload.event_type is IntermediateStepType.LLM_START:
            self._prompts[payload.UUID] = _prompt_in(payload)
            self._models[payload.UUID] = payload.name
        elif payload.event_type is IntermediateStepType.LLM_END and payload.data is not None:
            output = payload.data.output
            if isinstance(output, str):
                self._outputs[payload.UUID] = output


@contextmanager
def unwatched() -> Iterator[None]:
    """Nobody sees what is asked in the block: scorers ask models too."""
    token = _WATCHING.set(())
    try:
        yield
    finally:
        _WATCHING.reset(token)


def common_prompt(seen: Iterable[tuple[SeenPrompts, str]]) -> Prompt | None:
    """Return what all responses are responses to: the prompt that each was written to, or else what each began with.

    After tool calls the prompts that responses were written to differ; what an agent was asked first is common to all
    then. None where the first ones differ too.
    """
    calls = list(seen)
    return _only({one.behind(text) for one, text in calls}) or _only({one.first() for one, _ in calls})


def _only(prompts: set[Prompt | None]) -> Prompt | None:
    return next(iter(prompts)) if len(prompts) == 1 else None


def _prompt_in(payload: IntermediateStepPayload) -> Prompt | None:
    """Return the messages where the framework gives them, with the tools on offer, else the text."""
    chat, tools = get(payload.metadata, "chat_inputs"), get(payload.metadata, "tools_schema")
    for raw in (chat, None if payload.data is None else payload.data.input):
        try:
            return render_prompt(raw, tools)
        except CandidateRefused:
            continue
    return None
