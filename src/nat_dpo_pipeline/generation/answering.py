"""The middle of the recipe: questions → responses, asked for in pairs or one by one."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.parsing import parse_two_responses
from nat_dpo_pipeline.errors import ParseError
from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.asking import Asking, call_of, flaw_of, folded, nth, told_of, why_silent
from nat_dpo_pipeline.generation.chat import ChatModel
from nat_dpo_pipeline.generation.record import GenerationRecord
from nat_dpo_pipeline.generation.replies import ChatReply
from nat_dpo_pipeline.generation.settings import RecipeSettings, StepName
from nat_dpo_pipeline.generation.steps import Item
from nat_dpo_pipeline.generation.turns import Flaw, Question, Response, Sample

#: The name of the step that makes samples of a question.
SAMPLES = "samples"


@dataclass(slots=True)
class _Said:
    """What was said to a question so far, and how often more may be asked for."""

    top_ups: int
    texts: set[str] = field(default_factory=set)

    def is_unwanted(self, response: Response) -> bool:
        """Return whether to ask for another response; one that is empty for a known reason would be empty again."""
        return response.flaw is Flaw.EMPTY or self.has(response)

    def has(self, response: Response) -> bool:
        return bool(response.text) and folded(response.text) in self.texts

    def add(self, response: Response) -> None:
        self.texts.add(folded(response.text))


class Answering(Asking):
    """The steps that have questions answered. `n_responses` is how many a question is to have."""

    def __init__(
        self, responders: Sequence[ChatModel], n_responses: int, settings: RecipeSettings, record: GenerationRecord
    ) -> None:
        super().__init__(settings, record)
        self._responders = responders
        self._n_responses = n_responses
        self._said: WeakKeyDictionary[Item[Any], _Said] = WeakKeyDictionary()

    def sample(self, item: Item[Question], index: int) -> Sample:
        return Sample(item.value, index, self._responders[index % len(self._responders)])

    async def paired(self, item: Item[Sample]) -> list[Response]:
        """Both responses in one reply, as NVIDIA's notebook asks for them."""
        sample = item.value
        if not _is_to_be_asked(sample.question):
            return []
        prompt = prompts.load("responses").render(question=sample.question.text)
        messages = (*sample.question.messages[:-1], Message("user", prompt))
        reply, texts = await self._pair(item, messages)
        index = 2 * sample.index
        # Of two that are there only the second can have been cut.
        first = replace(reply, finish_reason=None, calls_tools=False) if texts[0] else reply
        return [
            self._response(sample, index, texts[0], first),
            self._response(sample, index + 1, texts[1], reply),
        ]

    async def _pair(self, item: Item[Sample], messages: tuple[Message, ...]) -> tuple[ChatReply, tuple[str, str]]:
        """Asked again when the reply does not hold two. Raises the last ParseError."""
        sample = item.value
        for attempt in range(self._settings.max_top_ups):
            reply = await self._sampled(item, messages, attempt)
            try:
                return reply, _two_unlike(reply)
            except ParseError as error:
                self._record.note(StepName.RESPONSES, sample.question.text, error)
        reply = await self._sampled(item, messages, self._settings.max_top_ups)
        return reply, _two_unlike(reply)

    async def independent(self, item: Item[Sample]) -> AsyncIterator[Response]:
        """One response to the question itself; another one when it is empty or was given before."""
        if not _is_to_be_asked(item.value.question):
            return
        first = response = await self._responded(item, 0)
        yield first
        await item.turn()
        said = self._said.setdefault(_asked_in(item), _Said(self._settings.max_top_ups))
        while said.top_ups and said.is_unwanted(response):
            self._withdraw(response)
            said.top_ups -= 1
            response = await self._responded(item, self._settings.max_top_ups - said.top_ups)
        if said.has(response):
            self._withdraw(response)
        elif response is not first:
            yield response
        said.add(response)

    async def _responded(self, item: Item[Sample], attempt: int) -> Response:
        sample = item.value
        reply = await self._sampled(item, sample.question.messages, attempt)
        return self._response(sample, sample.index, reply.text.strip(), reply)

    def _withdraw(self, response: Response) -> None:
        response.claim.withdraw()
        # Counted with the turn: whether the question itself stands may not be known yet.
        response.question.claim.repeated += bool(response.text)

    async def _sampled(self, item: Item[Sample], messages: tuple[Message, ...], attempt: int) -> ChatReply:
        sample = item.value
        number = sample.index + attempt * self._n_responses
        sampling = self._sampling(StepName.RESPONSES, number, self._temperature(sample))
        return await self._reply(StepName.RESPONSES, sample.model, call_of(item, messages, sampling, number, attempt))

    def _temperature(self, sample: Sample) -> float | None:
        """The n-th of a model's responses to a question has the n-th, also when it is asked for again."""
        return nth(self._temperatures(StepName.RESPONSES), sample.index // len(self._responders))

    def _response(self, sample: Sample, index: int, text: str, reply: ChatReply) -> Response:
        flaw = flaw_of(text, reply)
        varies = len(self._temperatures(StepName.RESPONSES)) > 1
        return Response(
            sample.question,
            index,
            text,
            llm=reply.llm,
            model=reply.model,
            flaw=flaw,
            temperature=self._temperature(sample) if varies else None,
            thoughts=reply.thoughts,
            detail=told_of(flaw, reply),
        )


def _asked_in(item: Item[Any]) -> Item[Any]:
    """The question that a sample is of, whatever steps are in between."""
    while item.step != SAMPLES and item.parent is not None:
        item = item.parent
    return item.parent or item


def _is_to_be_asked(question: Question) -> bool:
    question.claim.is_asked = True
    return not question.claim.is_withdrawn


def _two_unlike(reply: ChatReply) -> tuple[str, str]:
    """The two responses in a reply, both empty where asking again is of no use."""
    if why_silent(reply) is not None:
        return "", ""
    first, second = parse_two_responses(reply.text)
    if folded(first) == folded(second):
        raise ParseError("the two responses are the same", reply.text)
    return first, second
