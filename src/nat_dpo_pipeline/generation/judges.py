"""Language models that judge: by a rating, by comparing two responses, or as a generative reward model."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import permutations
from types import MappingProxyType
from typing import Generic, TypeVar

from nat_dpo_pipeline.core.comparisons import Comparison, Standing, standings
from nat_dpo_pipeline.core.endings import Ending
from nat_dpo_pipeline.core.messages import Message, plain_text
from nat_dpo_pipeline.core.rewards import GenRMFormat
from nat_dpo_pipeline.core.verdicts import parse_genrm, parse_rating, parse_scores, parse_winner
from nat_dpo_pipeline.errors import DPOPipelineError, InputError, ModelError, ParseError
from nat_dpo_pipeline.generation.chat import Call, ChatModel, OnReply
from nat_dpo_pipeline.generation.prompts import load
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.scorers import Score, ask, fold_system
from nat_dpo_pipeline.generation.settings import AS_CONFIGURED, Sampling
from nat_dpo_pipeline.generation.watching import ScorerWatch

T = TypeVar("T")
#: The call to make after one whose reply has no verdict: that call, the reply, and what is wrong with it.
_Again = Callable[[Call, str, str], Call]
_Results = Mapping[tuple[int, int], "_Verdict[Comparison] | BaseException"]

DEFAULT_CRITERIA = (
    "Consider whether it is correct, whether it helps with what was asked, whether anything that matters is missing, "
    "and whether it is clear and no longer than that takes."
)


_ALONE = "a judge that compares responses needs two at least, and this one is alone"


@dataclass(frozen=True, slots=True)
class _Verdict(Generic[T]):
    said: T
    model: str


class RatingJudge:
    """A language model that rates each response on a scale from `lowest` to `highest`."""

    def __init__(
        self,
        model: ChatModel,
        *,
        lowest: float = 1.0,
        highest: float = 10.0,
        criteria: str = DEFAULT_CRITERIA,
        sampling: Sampling = AS_CONFIGURED,
    ) -> None:
        self._asking = _Asking(model, _corrected)
        self._sampling = sampling
        self._scale = lowest, highest
        self._criteria = criteria

    async def score(self, prompt: Sequence[Message], response: str, on_reply: OnReply) -> Score:
        lowest, highest = self._scale
        material = {"conversation": plain_text(prompt), "reply": response}
        scale = {"lowest": f"{lowest:g}", "highest": f"{highest:g}"}
        call = _judging("judge_rating", material, self._criteria, self._sampling, **scale)
        judged = [*material.values()]
        verdict = await self._asking.asked(call, lambda reply: parse_rating(reply, lowest, highest, judged), on_reply)
        self._asking.watch.scored(response, verdict.said, verdict.model)
        return Score(verdict.said, MappingProxyType({}), verdict.model)


class PairwiseJudge:
    """A language model that compares every two responses, in both orders. See `standings` for the values."""

    def __init__(
        self, model: ChatModel, *, criteria: str = DEFAULT_CRITERIA, sampling: Sampling = AS_CONFIGURED
    ) -> None:
        self._asking = _Asking(model, _corrected)
        self._sampling = sampling
        self._criteria = criteria

    async def score_turn(
        self, prompt: Sequence[Message], responses: Sequence[str], on_reply: OnReply
    ) -> list[Score | DPOPipelineError]:
        conversation = plain_text(prompt)

        def compared(first: str, second: str) -> Awaitable[_Verdict[Comparison]]:
            material = {"conversation": conversation, "first": first, "second": second}
            call = _judging("judge_pairwise", material, self._criteria, self._sampling)
            return self._asking.asked(call, lambda reply: parse_winner(reply, [*material.values()]), on_reply)

        return self._asking.noted(responses, await _tournament(compared, responses))


class GroupJudge:
    """A language model that scores all responses together, from 0 to 1, in one call, as ART's RULER does.

    The responses stand in an order drawn from their texts, so that none gains from its place in every turn.
    """

    def __init__(
        self, model: ChatModel, *, criteria: str = DEFAULT_CRITERIA, sampling: Sampling = AS_CONFIGURED
    ) -> None:
        self._asking = _Asking(model, _corrected)
        self._sampling = sampling
        self._criteria = criteria

    async def score_turn(
        self, prompt: Sequence[Message], responses: Sequence[str], on_reply: OnReply
    ) -> list[Score | DPOPipelineError]:
        if len(responses) < 2:
            return [InputError(_ALONE) for _ in responses]
        order = sorted(range(len(responses)), key=lambda place: _digest(responses[place]))
        shown = [responses[place] for place in order]
        call = self._call(plain_text(prompt), shown)
        judged = [plain_text(prompt), *shown]
        try:
            verdict = await self._asking.asked(call, lambda reply: parse_scores(reply, len(shown), judged), on_reply)
        except DPOPipelineError as error:
            if not _is_candidates(error):
                raise
            return [error for _ in responses]
        scores = dict(zip(order, verdict.said, strict=True))
        found = [Score(scores[place], MappingProxyType({}), verdict.model) for place in range(len(responses))]
        return self._asking.noted(responses, [*found])

    def _call(self, conversation: str, shown: Sequence[str]) -> Call:
        mark = _digest("\x1e".join((conversation, *shown)))[:8]
        replies = "\n\n".join(
            f"<reply-{number}-{mark}>\n{text}\n</reply-{number}-{mark}>" for number, text in enumerate(shown, start=1)
        )
        material = {"conversation": conversation, "replies": replies}
        return _judging("judge_group", material, self._criteria, self._sampling, mark=mark, count=str(len(shown)))


class GenerativeRewardModel:
    """A model that is made to score two responses and to rank them, asked about every two, in both orders.

    The responses are turns with roles of their own, `response_1` and `response_2`, after a conversation that ends with
    the user. See `standings` for the values; the attribute `individual` is the mean of a response's own scores.
    """

    def __init__(self, model: ChatModel, form: GenRMFormat, sampling: Sampling = AS_CONFIGURED) -> None:
        self._asking = _Asking(model, _once_more)
        self._sampling = sampling
        self._form = form

    async def score_turn(
        self, prompt: Sequence[Message], responses: Sequence[str], on_reply: OnReply
    ) -> list[Score | DPOPipelineError]:
        turns = fold_system(prompt)

        def compared(first: str, second: str) -> Awaitable[_Verdict[Comparison]]:
            call = Call((*turns, Message("response_1", first), Message("response_2", second)), self._sampling)
            judged = [message.content for message in call.messages]
            return self._asking.asked(call, lambda reply: parse_genrm(reply, self._form, judged), on_reply)

        return self._asking.noted(responses, await _tournament(compared, responses))


@dataclass(frozen=True, slots=True)
class _Asking:
    """A judge, the second question to it, and the watch over its verdicts."""

    model: ChatModel
    again: _Again
    watch: ScorerWatch = field(default_factory=ScorerWatch)

    async def asked(self, call: Call, parse: Callable[[str], T], on_reply: OnReply) -> _Verdict[T]:
        """Ask, and ask `again` where the reply has no verdict; a reply that was cut would be cut again."""
        async with self.watch.reading():
            reply = await ask(self.model, call, on_reply)
            try:
                return _read(reply, parse)
            except ParseError as error:
                if reply.ending is Ending.CUT:
                    raise
                second = self.again(call, reply.text, str(error))
            return _read(await ask(self.model, second, on_reply), parse)

    def noted(
        self, responses: Sequence[str], results: list[Score | DPOPipelineError]
    ) -> list[Score | DPOPipelineError]:
        """Return the results, of which the watch has seen the scores."""
        for response, result in zip(responses, results, strict=True):
            if isinstance(result, Score):
                self.watch.scored(response, result.value, result.model)
        return results


def _read(reply: ChatReply, parse: Callable[[str], T]) -> _Verdict[T]:
    if reply.ending is not Ending.CUT:
        return _Verdict(parse(reply.text), reply.model)
    try:  # what such a reply ends with may be a quotation that was cut off from what comes behind it
        return _Verdict(parse(f"{reply.text}\n…"), reply.model)
    except ParseError as error:
        raise ParseError(f"{error}: the judge was cut, raise its max_tokens", reply.text) from error


def _corrected(call: Call, said: str, wrong: str) -> Call:
    """The call continued with what was wrong with the reply; a reply without an answer cannot be continued."""
    if not said.strip():
        return _once_more(call, said, wrong)
    asked = Message("user", load("judge_again").render(wrong=wrong))
    return _once_more(replace(call, messages=(*call.messages, Message("assistant", said), asked)), said, wrong)


def _once_more(call: Call, said: str, wrong: str) -> Call:  # noqa: ARG001 - all a model with roles of its own can be told
    """The same call again; with a seed the same one would give the same reply."""
    seed = call.sampling.seed
    again = call.sampling.model_copy(update={"seed": None if seed is None else seed + 1})
    return replace(call, sample=1, sampling=again)


async def _tournament(
    compared: Callable[[str, str], Awaitable[_Verdict[Comparison]]], responses: Sequence[str]
) -> list[Score | DPOPipelineError]:
    orders = list(permutations(range(len(responses)), 2))
    asked = (compared(responses[first], responses[second]) for first, second in orders)
    results = dict(zip(orders, await asyncio.gather(*asked, return_exceptions=True), strict=True))
    _raise_what_is_no_candidates_error(results)
    verdicts = {order: result for order, result in results.items() if isinstance(result, _Verdict)}
    stood = standings(len(responses), {order: verdict.said for order, verdict in verdicts.items()})
    return [
        _failure(index, results) if standing is None else _score(standing, _model_of(index, verdicts))
        for index, standing in enumerate(stood)
    ]


def _raise_what_is_no_candidates_error(results: _Results) -> None:
    for error in results.values():
        if isinstance(error, BaseException) and not _is_candidates(error):
            raise error


def _is_candidates(error: BaseException) -> bool:
    return isinstance(error, DPOPipelineError) and not (isinstance(error, ModelError) and error.fatal)


def _failure(index: int, results: _Results) -> DPOPipelineError:
    failures = (result for order, result in results.items() if index in order and isinstance(result, DPOPipelineError))
    return next(failures, InputError(_ALONE))


def _model_of(index: int, verdicts: Mapping[tuple[int, int], _Verdict[Comparison]]) -> str:
    return next(verdict.model for order, verdict in verdicts.items() if index in order)


def _score(standing: Standing, model: str) -> Score:
    attributes = {} if standing.individual is None else {"individual": standing.individual}
    return Score(standing.value, MappingProxyType(attributes), model)


def _judging(
    template: str,
    material: Mapping[str, str],
    criteria: str,
    sampling: Sampling,
    mark: str | None = None,
    **values: str,
) -> Call:
    """Return a call that asks for a judgement of `material`, of which no part can close the tags around it."""
    digest = _digest("\x1e".join(material.values()))
    text = load(template).render(mark=mark or digest[:8], criteria=criteria, **material, **values)
    # All of the request is one message, so a pool could not tell the calls apart by what comes before the last.
    place = int(digest[-8:], 16)
    return Call((Message("user", text),), sampling, place=place)


def _digest(text: str) -> str:
    return sha256(text.encode(errors="surrogatepass")).hexdigest()
