"""The llms of a configuration for functions of one's own that use no framework.

    async with open_llm(builder, "writer") as model:
        reply = await model.complete(Call((Message("user", "Why?"),)))

Calls are steps of the workflow, so that traces and `best_of_n` see what the model was asked, and follow its `vary`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

from nat.plugin_api import Builder, Context

from nat_dpo_pipeline.core.messages import as_messages
from nat_dpo_pipeline.generation.chat import Call, ChatModel
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.replies import ChatReply, Usage
from nat_dpo_pipeline.generation.settings import Sampling
from nat_dpo_pipeline.plugin.nat_api import (
    IntermediateStepPayload,
    IntermediateStepType,
    StreamEventData,
    TokenUsageBaseModel,
    TraceMetadata,
    UsageInfo,
)
from nat_dpo_pipeline.plugin.varying import sampling_for
from nat_dpo_pipeline.plugin.workflows.models import open_model, retries_of


@asynccontextmanager
async def open_llm(
    builder: Builder, name: str, *, timeout_seconds: float = 120.0, max_retries: int = 2
) -> AsyncIterator[ChatModel]:
    """The llm entry `name` as a chat model whose connections close with the block.

    `max_retries` is for an entry that sets none. Raises ConfigurationError as `open_model` does.
    """
    config = builder.get_llm_config(name)
    model = open_model(name, config, timeout_seconds=timeout_seconds)
    own = retries_of(name, config)
    try:
        limits = Limits(max_retries=max_retries if own is None else own)
        # Frameworks' steps have this name too; `open_model` has refused what has none.
        yield _TracedModel(LimitedModel(model, limits, model.served), str(getattr(config, "model_name", name)))
    finally:
        await model.aclose()


@dataclass(frozen=True, slots=True)
class _TracedModel:
    """A chat model whose calls are LLM_START/LLM_END steps, sampled as the call of the function wants it."""

    model: ChatModel
    called: str

    @property
    def name(self) -> str:
        return self.model.name

    async def complete(self, call: Call) -> ChatReply:
        manager = Context.get().intermediate_step_manager
        messages = as_messages(call.messages)
        start = IntermediateStepPayload(
            event_type=IntermediateStepType.LLM_START,
            name=self.called,
            UUID=str(uuid4()),
            data=StreamEventData(input=messages),
            metadata=TraceMetadata(chat_inputs=messages),
        )
        manager.push_intermediate_step(start)
        reply = None
        try:
            reply = await self.model.complete(replace(call, sampling=_varied(call.sampling, sampling_for(self.name))))
        finally:
            manager.push_intermediate_step(_ended(start, messages, reply))
        return reply


def _ended(
    start: IntermediateStepPayload, messages: list[dict[str, object]], reply: ChatReply | None
) -> IntermediateStepPayload:
    """The end of a call's step; without a reply that of one that failed."""
    output = None if reply is None else reply.text
    end = {"event_type": IntermediateStepType.LLM_END, "data": StreamEventData(input=messages, output=output)}
    if reply is not None:
        end["usage_info"] = UsageInfo(token_usage=_tokens(reply.usage), num_llm_calls=1)
    return start.model_copy(update=end)


def _tokens(usage: Usage) -> TokenUsageBaseModel:
    total = usage.prompt_tokens + usage.completion_tokens
    return TokenUsageBaseModel(
        prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens, total_tokens=total
    )


def _varied(asked: Sampling, wanted: Sampling) -> Sampling:
    given = {"temperature": wanted.temperature, "seed": wanted.seed}
    return asked.model_copy(update={name: value for name, value in given.items() if value is not None})
