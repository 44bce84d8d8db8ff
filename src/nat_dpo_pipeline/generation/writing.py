"""The first steps of the recipe: topic → subtopics → questions, as many as were asked for and no two alike."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from nat_dpo_pipeline.core.endings import Ending
from nat_dpo_pipeline.core.messages import Message
from nat_dpo_pipeline.core.parsing import parse_lines, parse_terms
from nat_dpo_pipeline.core.similarity import NearDuplicates
from nat_dpo_pipeline.errors import ModelError, ParseError
from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.asking import Asking, call_of, nth, told_of, why_silent
from nat_dpo_pipeline.generation.chat import ChatModel
from nat_dpo_pipeline.generation.inputs import Request
from nat_dpo_pipeline.generation.listing import Listing
from nat_dpo_pipeline.generation.record import Failure, GenerationRecord
from nat_dpo_pipeline.generation.settings import RecipeSettings, StepName
from nat_dpo_pipeline.generation.steps import Item
from nat_dpo_pipeline.generation.turns import Claim, Question, Subtopic


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


class Writing(Asking):
    """The steps that write what is to be asked."""

    def __init__(self, writer: ChatModel, settings: RecipeSettings, record: GenerationRecord) -> None:
        super().__init__(settings, record)
        self._writer = writer
        self._asked: WeakKeyDictionary[Item[Any], NearDuplicates] = WeakKeyDictionary()

    async def subtopics(self, item: Item[Request]) -> AsyncIterator[Subtopic | Question]:
        request = item.value
        if request.topic is None:
            yield Question(request.messages)
            return
        self._record.counts["topics"] += 1
        listing = self._listing(item, StepName.SUBTOPICS, request.topic)
        found = 0
        async with aclosing(listing.more(self._settings.n_subtopics)) as names:
            async for name in names:
                found += 1
                yield Subtopic(request.topic, name)
        self._told(StepName.SUBTOPICS, found, self._settings.n_subtopics, listing)

    async def questions(self, item: Item[Subtopic | Question]) -> AsyncIterator[Question]:
        subtopic = item.value
        if isinstance(subtopic, Question):
            self._record.counts["questions"] += 1
            yield subtopic
            return
        count = self._settings.n_questions
        listing = self._listing(item, StepName.QUESTIONS, subtopic.name)
        tentative: list[Question] = []
        async with aclosing(listing.more(count)) as texts:
            async for text in texts:
                tentative.append(_question(text, subtopic, is_settled=False))
                yield tentative[-1]
        # From here to the end no other subtopic of the topic decides on its questions.
        await item.turn()
        asked = self._asked.setdefault(item.root, NearDuplicates(self._settings.near_duplicate))
        kept = _settled(tentative, asked)
        listing.duplicates += len(tentative) - kept
        async with aclosing(_unasked(listing, asked, count - kept)) as questions:
            async for text in questions:
                kept += 1
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
            sampling = self._sampling(step, attempt, nth(self._temperatures(step), attempt))
            call = call_of(item, (Message("user", prompt),), sampling, attempt, attempt)
            reply = await self._reply(step, self._writer, call)
            if (flaw := why_silent(reply)) is not None:
                detail = told_of(flaw, reply) or "no text"
                self._record.add(Failure(step, subject, flaw.failure, detail, reply.thoughts))
                return None
            items = form.parse(reply.text, missing)
        except ModelError as error:
            self._record.note(step, subject, error)
            return None
        except ParseError as error:
            self._record.note(step, subject, error)
            return []
        # The last item of a list that was cut is cut too.
        return items if reply.ending is Ending.WHOLE else items[:-1]

    def _told(self, step: StepName, found: int, expected: int, listing: Listing) -> None:
        counts = self._record.counts
        counts[step] += found
        if listing.duplicates:
            counts[f"duplicate_{step}"] += listing.duplicates
        if found < expected:
            counts[f"missing_{step}"] += expected - found


async def _unasked(listing: Listing, asked: NearDuplicates, missing: int) -> AsyncGenerator[str, None]:
    """`missing` further questions that no other subtopic has; fewer when the listing is at its end."""
    came_any = True
    while missing and came_any:
        came_any = False
        async with aclosing(listing.more(missing)) as texts:
            async for text in texts:
                came_any = True
                if asked.add(text):
                    missing -= 1
                    yield text
                else:
                    listing.duplicates += 1


def _question(text: str, subtopic: Subtopic, *, is_settled: bool) -> Question:
    messages = (Message("user", text),)
    return Question(messages, subtopic.topic, subtopic.name, Claim(is_settled=is_settled))


def _settled(questions: Sequence[Question], asked: NearDuplicates) -> int:
    """How many of the questions stand: those that nobody asked before."""
    for question in questions:
        if asked.add(question.text):
            question.claim.settle()
        else:
            question.claim.withdraw()
    return sum(not question.claim.is_withdrawn for question in questions)
