"""Scorers: a prompt and a response in, a score out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.core.parsing import parse_reward
from nat_dpo_pipeline.core.rewards import combine
from nat_dpo_pipeline.errors import InputError, ParseError
from nat_dpo_pipeline.generation.chat import ChatModel, ChatReply


@dataclass(frozen=True, slots=True)
class Score:
    """A finite score, the attributes it was made of (empty for a scalar reward), and the model that gave it."""

    value: float
    attributes: Mapping[str, float]
    model: str


class Scorer(Protocol):
    """What scores one response. `on_reply` sees every reply that was paid for, also one without a score.

    `score` raises ModelError for a call that failed and ParseError for a reply without a score.
    """

    async def score(self, prompt: Sequence[Message], response: str, on_reply: Callable[[ChatReply], None]) -> Score: ...


class RewardModelScorer:
    """A reward model behind the chat API: the conversation, ending with the response, is the request."""

    def __init__(self, model: ChatModel, weights: Mapping[str, float]) -> None:
        self._model = model
        self._weights = weights

    async def score(self, prompt: Sequence[Message], response: str, on_reply: Callable[[ChatReply], None]) -> Score:
        reply = await self._model.complete([*fold_system(prompt), Message("assistant", response)])
        on_reply(reply)
        reward = parse_reward(reply.body)
        try:
            value = combine(reward, self._weights)
        except InputError as error:
            raise ParseError(str(error), reply.text) from error
        return Score(value, MappingProxyType(dict(reward.attributes or {})), reply.model)


def fold_system(prompt: Sequence[Message]) -> list[Message]:
    """The prompt with its system messages in a first user turn: reward models know two roles only, in turns."""
    system = [message.content for message in prompt if message.role == "system"]
    rest = [message for message in prompt if message.role != "system"]
    if not system:
        return rest
    if not rest or rest[0].role != "user":
        return [Message("user", "\n\n".join(system)), *rest]
    return [Message("user", "\n\n".join([*system, rest[0].content])), *rest[1:]]
