"""NVIDIA's preference-data recipe as a pipeline: topic → subtopics → questions → responses → rewards → turns.

A failed call or an unreadable reply costs what hung on it and nothing else; it is recorded with its reply. A model that
no further call can reach (a wrong key, spent credit) ends the run; what other models can finish is finished.

Nothing waits for its neighbours, and yet what comes out does not depend on which reply was first: a question goes on as
soon as it is there, and if it turns out to repeat one of an earlier subtopic it is withdrawn and another is asked for.
So with the responses to one question.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary

from nat_dpo_pipeline.core.candidates import Message
from nat_dpo_pipeline.core.parsing import parse_lines, parse_terms, parse_two_responses
from nat_dpo_pipeline.core.refusals import is_refusal
from nat_dpo_pipeline.core.similarity import NearDuplicates
from nat_dpo_pipeline.errors import ConfigurationError, ModelError, ParseError
from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.chat import Call, ChatModel, ChatReply, Sampling
from nat_dpo_pipeline.generation.inputs import Request
from nat_dpo_pipeline.generation.listing import Listing
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.rewarding import rewarded
from nat_dpo_pipeline.generation.scorers import Scorer, TurnScorer
from nat_dpo_pipeline.generation.settings import RecipeSettings, ResponseMode, StepName, StepSampling
from nat_dpo_pipeline.generation.steps import Broadcast, Item, Pipeline, Scatter
from nat_dpo_pipeline.generation.turns import (
    Claim,
    Flaw,
    Question,
    Response,
    Sample,
    Subtopic,
    Turn,
)

_FEWEST_LISTS = 8
_SAMPLES = "samples"
_FAILURES = {
    Flaw.EMPTY: FailureReason.EMPTY_REPLY,
    Flaw.TRUNCATED: FailureReason.TRUNCATED_REPLY,
    Flaw.REFUSAL: FailureReason.REFUSAL,
}


@dataclass(frozen=True, slots=True)
class _ListPrompt:
    """What the recipe's prompt for a list calls its subject and its number, and how the reply is read."""

    subject: str
    count: str
    parse: Callable[[str, int], list[str]]


_LISTS: Mapping[StepName, _ListPrompt] = {
    StepName.SUBTOPICS: _ListPrompt("topic", "n_subtopics", parse_terms),
    StepName.QUESTIONS: _ListPrompt("sub_topic", "n_questions", parse_lines),
}


@dataclass(frozen=True, slots=True)
class PreferenceRecipe:
    """The recipe over its models. `adapt` gives the pipeline that is run instead of the recipe's own.

    `responders` are asked one after the other for each question: one pool, or every model that is to answer every
    question. `workers` is how many items each step holds.
    """

    writer: ChatModel
    responders: Sequence[ChatModel]
    scorer: Scorer | TurnScorer
    settings: RecipeSettings
    adapt: Callable[[Pipeline], Pipeline] | None = None
    workers: int = 64

    def pipeline(self, record: GenerationRecord) -> Pipeline:
        """The steps of one run. Raises ConfigurationError when what `adapt` gives does not end with turns."""
        own = _Steps(self, record).pipeline()
        return own if self.adapt is None else _ending_with_turns(self.adapt(own))

    async def run(
        self, requests: AsyncIterator[Request] | Iterable[Request], record: GenerationRecord
    ) -> AsyncGenerator[Item[Turn], None]:
        """The turns of all requests, each as soon as it is complete; their paths give the order of the requests."""
        held: list[Item[Turn]] = []
        async with aclosing(self.pipeline(record).run(requests, observer=record, workers=self.workers)) as items:
            async for item in items:
                settled, held = _settled_and_not((*held, item))
                for one in self._told(settled, record):
                    yield one
        # What was settled after the last turn came.
        for one in self._told(_settled_and_not(held)[0], record):
            yield one

    async def turns(self, request: Request, record: GenerationRecord) -> list[Turn]:
        """The turns of one request, in the order of its questions."""
        found = [item async for item in self.run((request,), record)]
        return [item.value for item in sorted(found, key=lambda item: item.path)]

    @property
    def n_responses(self) -> int:
        """How many responses a question is to have."""
        paired = self.settings.responses is ResponseMode.PAIRED
        return len(self.responders) * (2 if paired else self.settings.n_responses)

    def _told(self, items: Sequence[Item[Turn]], record: GenerationRecord) -> list[Item[Turn]]:
        """Those to whose question something was said; the others are only missed."""
        for item in items:
            self._tell(item.value, record)
        return [item for item in items if item.value.candidates or item.value.unscored]

    def _tell(self, turn: Turn, record: GenerationRecord) -> None:
        flawed = [(one.response, flaw) for one in turn.unscored if (flaw := one.response.flaw) and one.reason == flaw]
        for response, flaw in flawed:
            detail = f"response {response.index} of {response.model}"
            record.add(Failure(StepName.RESPONSES, turn.question.text, _FAILURES[flaw], detail, response.text))
        counts = record.counts
        counts["responses"] += len(turn.candidates) + len(turn.unscored)
        counts["candidates"] += len(turn.candidates)
        if (missing := self.n_responses - len(turn.candidates) - len(turn.unscored) + len(flawed)) > 0:
            counts["missing_responses"] += missing
        if repeated := turn.question.claim.repeated:
            counts["duplicate_responses"] += repeated
        if turn.set_aside:
            counts[f"questions_{turn.set_aside}"] += 1


@dataclass(slots=True)
class _Said:
    """What was said to a question so far, and how often more may be asked for."""

    top_ups: int
    texts: set[str] = field(default_factory=set)

    def is_unwanted(self, response: Response) -> bool:
        return not response.text or _folded(response.text) in self.texts

    def add(self, response: Response) -> None:
        self.texts.add(_folded(response.text))


class _Steps:
    """The step functions of one run."""

    def __init__(self, recipe: PreferenceRecipe, record: GenerationRecord) -> None:
        self._recipe = recipe
        self._settings = recipe.settings
        self._record = record
        self._asked: WeakKeyDictionary[Item[Any], NearDuplicates] = WeakKeyDictionary()
        self._said: WeakKeyDictionary[Item[Any], _Said] = WeakKeyDictionary()

    def pipeline(self) -> Pipeline:
        paired = self._settings.responses is ResponseMode.PAIRED
        count = self._recipe.n_responses // (2 if paired else 1)
        responses = (
            Scatter(self.subtopics)
            >> Scatter(self.questions, in_order_of="subtopics", workers=self._lists_at_once())
            >> Broadcast(count, self.sample, name=_SAMPLES)
            >> Scatter(self.paired if paired else self.independent, name="responses", in_order_of=_SAMPLES)
        )
        return rewarded(responses, self._recipe.scorer, self._settings, self._record)

    def _lists_at_once(self) -> int:
        """So many that their questions keep the next steps busy; more would only wait, with what came of them."""
        return max(2 * ceil(self._recipe.workers / self._settings.n_questions), _FEWEST_LISTS)

    async def subtopics(self, item: Item[Request]) -> list[Subtopic | Question]:
        request = item.value
        if request.topic is None:
            return [Question(request.messages)]
        self._record.counts["topics"] += 1
        listing = self._listing(item, StepName.SUBTOPICS, request.topic)
        names = await listing.more(self._settings.n_subtopics)
        self._told(StepName.SUBTOPICS, len(names), self._settings.n_subtopics, listing)
        return [Subtopic(request.topic, name) for name in names]

    async def questions(self, item: Item[Subtopic | Question]) -> AsyncIterator[Question]:
        subtopic = item.value
        if isinstance(subtopic, Question):
            self._record.counts["questions"] += 1
            yield subtopic
            return
        count = self._settings.n_questions
        listing = self._listing(item, StepName.QUESTIONS, subtopic.name)
        tentative = [_question(text, subtopic, is_settled=False) for text in await listing.more(count)]
        for question in tentative:
            yield question
        # From here to the end no other subtopic of the topic decides on its questions.
        await item.turn()
        asked = self._asked.setdefault(item.root, NearDuplicates(self._settings.near_duplicate))
        kept = _settled(tentative, asked)
        listing.duplicates += len(tentative) - kept
        while kept < count and (texts := await listing.more(count - kept)):
            fresh = [text for text in texts if asked.add(text)]
            listing.duplicates += len(texts) - len(fresh)
            kept += len(fresh)
            for text in fresh:
                yield _question(text, subtopic, is_settled=True)
        self._told(StepName.QUESTIONS, kept, count, listing)

    def _listing(self, item: Item[Any], step: StepName, subject: str) -> Listing:
        return Listing(
            partial(self._listed, item, step, subject),
            attempts=1 + self._settings.max_top_ups,
            near_duplicate=self._settings.near_duplicate,
        )

    async def _listed(
        self, item: Item[Any], step: StepName, subject: str, missing: int, known: Sequence[str], attempt: int
    ) -> list[str] | None:
        form = _LISTS[step]
        prompt = prompts.load(step).render(**{form.subject: subject, form.count: missing})
        if known:
            prompt = prompts.load("more").render(prompt=prompt, known="\n".join(known))
        try:
            sampling = self._sampling(step, attempt, _at(self._temperatures(step), attempt))
            call = _call(item, (Message("user", prompt),), sampling, attempt, attempt)
            reply = await self._reply(step, self._recipe.writer, call)
            items = form.parse(reply.text, missing)
        except ModelError as error:
            self._record.note(step, subject, error)
            return None
        except ParseError as error:
            self._record.note(step, subject, error)
            return []
        # The last item of a list that was cut is cut too.
        return items[:-1] if reply.finish_reason == "length" else items

    def _told(self, step: StepName, found: int, expected: int, listing: Listing) -> None:
        counts = self._record.counts
        counts[step] += found
        if listing.duplicates:
            counts[f"duplicate_{step}"] += listing.duplicates
        if found < expected:
            counts[f"missing_{step}"] += expected - found

    def sample(self, item: Item[Question], index: int) -> Sample:
        responders = self._recipe.responders
        return Sample(item.value, index, responders[index % len(responders)])

    async def paired(self, item: Item[Sample]) -> list[Response]:
        """Both responses in one reply, as NVIDIA's notebook asks for them."""
        sample = item.value
        if not _is_to_be_asked(sample.question):
            return []
        prompt = prompts.load("responses").render(question=sample.question.text)
        messages = (*sample.question.messages[:-1], Message("user", prompt))
        reply, texts = await self._pair(item, messages)
        index = 2 * sample.index
        # Only the second can have been cut.
        return [
            self._response(sample, index, texts[0], replace(reply, finish_reason=None)),
            self._response(sample, index + 1, texts[1], reply),
        ]

    async def _pair(self, item: Item[Sample], messages: tuple[Message, ...]) -> tuple[ChatReply, tuple[str, str]]:
        """Asked again when the reply does not hold two. Raises the last ParseError."""
        sample = item.value
        for attempt in range(self._settings.max_top_ups):
            reply = await self._sampled(item, messages, attempt)
            try:
                return reply, _two_unlike(reply.text)
            except ParseError as error:
                self._record.note(StepName.RESPONSES, sample.question.text, error)
        reply = await self._sampled(item, messages, self._settings.max_top_ups)
        return reply, _two_unlike(reply.text)

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
        if response.text and said.is_unwanted(response):
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
        number = sample.index + attempt * self._recipe.n_responses
        sampling = self._sampling(StepName.RESPONSES, number, self._temperature(sample))
        return await self._reply(StepName.RESPONSES, sample.model, _call(item, messages, sampling, number, attempt))

    async def _reply(self, step: StepName, model: ChatModel, call: Call) -> ChatReply:
        reply = await model.complete(call)
        self._record.spent(step, reply)
        return reply

    def _sampling(self, step: StepName, number: int, temperature: float | None) -> Sampling:
        """How the call that is number `number` among its equals is sampled."""
        own = self._settings.sampling.get(step, StepSampling())
        seed = self._settings.seed if own.seed is None else own.seed
        return Sampling(
            temperature=temperature,
            top_p=own.top_p,
            max_tokens=own.max_tokens,
            seed=None if seed is None else seed + number,
            extra_body=own.extra_body,
        )

    def _temperature(self, sample: Sample) -> float | None:
        """The n-th of a model's responses to a question has the n-th, also when it is asked for again."""
        return _at(self._temperatures(StepName.RESPONSES), sample.index // len(self._recipe.responders))

    def _temperatures(self, step: StepName) -> Sequence[float]:
        return self._settings.sampling.get(step, StepSampling()).temperatures

    def _response(self, sample: Sample, index: int, text: str, reply: ChatReply) -> Response:
        varies = len(self._temperatures(StepName.RESPONSES)) > 1
        return Response(
            sample.question,
            index,
            text,
            llm=reply.llm,
            model=reply.model,
            flaw=_flaw(text, reply),
            temperature=self._temperature(sample) if varies else None,
        )


def _call(item: Item[Any], messages: tuple[Message, ...], sampling: Sampling, number: int, attempt: int) -> Call:
    """The call that is number `number` among its equals. In a pool the next attempt is another member's."""
    run = getattr(item.root.value, "run", 0)
    return Call(messages, sampling, sample=number, run=run, place=sum(item.path) + attempt)


def _ending_with_turns(adapted: object) -> Pipeline:
    if not isinstance(adapted, Pipeline):
        raise ConfigurationError(f"what adapts the pipeline must return a Pipeline, got {adapted!r:.80}")
    if not adapted.steps or adapted.steps[-1].gives is not Turn:
        last = repr(adapted.steps[-1]) if adapted.steps else "missing"
        raise ConfigurationError(f"the last step of the adapted pipeline must give Turn, but it is {last}")
    return adapted


def _asked_in(item: Item[Any]) -> Item[Any]:
    """The question that a sample is of, whatever steps are in between."""
    while item.step != _SAMPLES and item.parent is not None:
        item = item.parent
    return item.parent or item


def _settled_and_not(items: Sequence[Item[Turn]]) -> tuple[list[Item[Turn]], list[Item[Turn]]]:
    """The turns whose questions stand, and those of which this is not known yet."""
    claims = [(item, item.value.question.claim) for item in items]
    stand = [item for item, claim in claims if claim.is_settled and not claim.is_withdrawn]
    return stand, [item for item, claim in claims if not claim.is_settled]


def _question(text: str, subtopic: Subtopic, *, is_settled: bool) -> Question:
    messages = (Message("user", text),)
    return Question(messages, subtopic.topic, subtopic.name, Claim(is_settled=is_settled))


def _is_to_be_asked(question: Question) -> bool:
    question.claim.is_asked = True
    return not question.claim.is_withdrawn


def _settled(questions: Sequence[Question], asked: NearDuplicates) -> int:
    """How many of the questions stand: those that nobody asked before."""
    for question in questions:
        if asked.add(question.text):
            question.claim.settle()
        else:
            question.claim.withdraw()
    return sum(not question.claim.is_withdrawn for question in questions)


def _two_unlike(reply: str) -> tuple[str, str]:
    first, second = parse_two_responses(reply)
    if _folded(first) == _folded(second):
        raise ParseError("the two responses are the same", reply)
    return first, second


def _flaw(text: str, reply: ChatReply) -> Flaw | None:
    if reply.refused or is_refusal(text):
        return Flaw.REFUSAL
    if not text:
        return Flaw.EMPTY
    return Flaw.TRUNCATED if reply.finish_reason == "length" else None


def _at(values: Sequence[float], number: int) -> float | None:
    return values[number % len(values)] if values else None


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
