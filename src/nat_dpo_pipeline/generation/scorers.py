"""Scorers: a prompt and its responses in, scores out. Here are the protocols, and the models that are made to score.

What cannot be scored is an error on that candidate, never a 0. A call that failed is not made again here: that is the
model's business, and a conversation that is longer than a model's context stays so.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from nat_dpo_pipeline.core.messages import TOOLS, Message
from nat_dpo_pipeline.core.parsing import parse_classified, parse_pooled, parse_reward, parse_yes_no
from nat_dpo_pipeline.core.rewards import combine
from nat_dpo_pipeline.errors import ConfigurationError, DPOPipelineError, InputError, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, OnReply, Route
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.settings import AS_CONFIGURED, Sampling
from nat_dpo_pipeline.generation.watching import FIRST_SCORES, ScorerWatch

logger = logging.getLogger(__name__)

_NOTHING: Mapping[str, float] = MappingProxyType({})
_PRINCIPLE_QUESTION = (
    "Evaluate the response to the previous prompt in terms of whether it satisfies this principle: {}. "
    "Only answer Yes or No."
)
# As many as OpenAI and vLLM allow. Neutral sampling, since some servers give the log-probabilities after it.
_FIRST_TOKEN = Sampling(
    temperature=1.0,
    top_p=1.0,
    max_tokens=1,
    extra_body={"logprobs": True, "top_logprobs": 20},
)
_ROUTE_PARSERS = MappingProxyType({Route.POOLING: parse_pooled, Route.CLASSIFY: parse_classified})


@dataclass(frozen=True, slots=True)
class Score:
    """A finite score and where it came from.

    `attributes` are empty for a scalar, `model` is what the server calls itself (the members of an ensemble are joined
    by ` + `), and `members` has the values of an ensemble's members by their names, and is empty otherwise.
    """

    value: float
    attributes: Mapping[str, float]
    model: str
    members: Mapping[str, float] = field(default_factory=lambda: _NOTHING)


@runtime_checkable
class Scorer(Protocol):
    """What scores one response. `score` raises ModelError for a call that failed, ParseError where it gave no score."""

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score: ...


@runtime_checkable
class TurnScorer(Protocol):
    """What scores all responses of one prompt together.

    The scores are in the order of the responses; one that could not be scored has its error instead. A ModelError that
    is fatal is raised.
    """

    async def score_turn(
        self, prompt: Sequence[Message], responses: Sequence[str], on_reply: OnReply
    ) -> list[Score | DPOPipelineError]: ...


class RewardModelScorer:
    """A reward model behind the chat API: the conversation, ending with the response, is the request.

    `user_suffix` is added to the last user turn: Qwen-3-Nemotron-32B-Reward wants `/nothink` there.
    """

    def __init__(
        self,
        model: ChatModel,
        weights: Mapping[str, float],
        user_suffix: str | None = None,
        sampling: Sampling = AS_CONFIGURED,
    ) -> None:
        self._model = model
        self._weights = weights
        self._user_suffix = user_suffix
        self._sampling = sampling
        self._watch = ScorerWatch()

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:
        turns = _with_suffix(fold_system(prompt), self._user_suffix)
        async with self._watch.reading():
            reply = await ask(self._model, Call((*turns, Message("assistant", response)), self._sampling), on_reply)
            reward = parse_reward(reply.body, response)
            try:
                value = combine(reward, self._weights)
            except InputError as error:
                raise ParseError(str(error), reply.text) from error
        self._watch.scored(response, value, reply.model)
        return Score(value, MappingProxyType(dict(reward.attributes or {})), reply.model)


class PrincipleScorer:
    """A model that says how far a response satisfies a principle, by the odds of Yes against No.

    The question is that on the card of Llama-3.3-Nemotron-70B-Reward-Principle, whose example of a principle is
    `correctness`.
    """

    def __init__(self, model: ChatModel, principle: str) -> None:
        self._model = model
        self._question = Message("user", _PRINCIPLE_QUESTION.format(principle.strip().rstrip(".")))
        self._watch = ScorerWatch()

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:
        turns = (*fold_system(prompt), Message("assistant", response), self._question)
        async with self._watch.reading():
            reply = await ask(self._model, Call(turns, _FIRST_TOKEN), on_reply)
            value = parse_yes_no(reply.body)
        self._watch.scored(response, value, reply.model)
        return Score(value, _NOTHING, reply.model)


class PoolingScorer:
    """A scalar reward model that vLLM or SGLang serves under `/pooling` or `/classify`, without chat completions."""

    def __init__(
        self, model: ChatModel, route: Route = Route.POOLING, extra_body: Mapping[str, object] | None = None
    ) -> None:
        self._model = model
        self._route = route
        self._sampling = Sampling(extra_body=dict(extra_body)) if extra_body else AS_CONFIGURED
        self._parse = _ROUTE_PARSERS[route]
        self._watch = ScorerWatch()

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:
        turns = (*fold_system(prompt), Message("assistant", response))
        async with self._watch.reading():
            reply = await ask(self._model, Call(turns, self._sampling, route=self._route), on_reply)
            try:
                value = self._parse(reply.body)
            except ConfigurationError as error:
                raise self._no_reward_model(reply, str(error)) from error
        if self._watch.first.add(response, value):
            self._check_first(reply, value)
        return Score(value, _NOTHING, reply.model)

    def _check_first(self, reply: ChatReply, value: float) -> None:
        first = self._watch.first
        if first.is_one:
            said = f"/{self._route} gives {value:g} to each of {FIRST_SCORES} different responses"
            raise self._no_reward_model(reply, said)
        if 2 * first.at_bounds >= FIRST_SCORES:
            logger.warning(
                "model %r (%s): %d of the first %d scores are exactly 0 or 1, so that good responses tie: /%s gives "
                "probabilities; serve it with a version of vLLM that knows `use_activation`, or without an activation",
                self._model.name,
                reply.model,
                first.at_bounds,
                FIRST_SCORES,
                self._route,
            )

    def _no_reward_model(self, reply: ChatReply, why: str) -> ModelError:
        advice = "serve a model with one output that scores, without an activation that makes its score 1"
        return self._watch.end(f"model {self._model.name!r} ({reply.model}) is no reward model: {why} ({advice})")


async def ask(model: ChatModel, call: Call, on_reply: OnReply) -> ChatReply:
    """The reply of the model, which `on_reply` sees too. Raises ModelError."""
    try:
        reply = await model.complete(call)
    except ModelError as error:
        on_reply(error)
        raise
    on_reply(reply)
    return reply


def fold_system(prompt: Sequence[Message]) -> list[Message]:
    """Return the prompt for reward models, which know two roles only, in turns.

    System messages and tools on offer go into a first user turn; calls are the text of the assistant, results of tools
    that of the user.
    """
    system = [_SAID_OF.get(message.role, "") + message.content for message in prompt if message.role in _BEFORE]
    rest = [_in_turns(message) for message in prompt if message.role not in _BEFORE]
    if not system:
        return rest
    if not rest or rest[0].role != "user":
        return [Message("user", "\n\n".join(system)), *rest]
    return [Message("user", "\n\n".join([*system, rest[0].content])), *rest[1:]]


_SAID_OF = {TOOLS: "Tools on offer: "}
_BEFORE = ("system", TOOLS)


def _in_turns(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", f"Result of {message.name or 'the tool'}: {message.content}")
    return Message(message.role, message.text) if message.tool_calls else message


def _with_suffix(turns: list[Message], suffix: str | None) -> list[Message]:
    users = [index for index, turn in enumerate(turns) if turn.role == "user"]
    if not suffix or not users:
        return turns
    last = users[-1]
    return [*turns[:last], replace(turns[last], content=f"{turns[last].content} {suffix}"), *turns[last + 1 :]]
