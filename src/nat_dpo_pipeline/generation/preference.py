"""NVIDIA's preference-data recipe: topic → subtopics → questions → responses → reward scores.

A failed call or an unreadable reply costs what hung on it and nothing else; it is recorded with its reply. An error
that no further call can escape (a wrong key, spent credit) ends the run; what was finished before is kept.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from nat_dpo_pipeline.core.candidates import Candidate, Message
from nat_dpo_pipeline.core.parsing import parse_lines, parse_terms, parse_two_responses
from nat_dpo_pipeline.core.rendering import render_prompt
from nat_dpo_pipeline.core.split import deduplicate
from nat_dpo_pipeline.errors import InputError, ModelError, ParseError
from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.chat import ChatModel, ChatReply
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord, StepName
from nat_dpo_pipeline.generation.scorers import Score, Scorer
from nat_dpo_pipeline.generation.settings import InputKind, RecipeSettings, ResponseMode

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """Either a topic to find questions for, or the messages to respond to."""

    topic: str | None = None
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt of the run, and where it came from."""

    index: int
    messages: tuple[Message, ...]
    topic: str | None = None
    subtopic: str | None = None

    @property
    def text(self) -> str:
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Response:
    """A response before it is scored."""

    index: int
    text: str
    model: str
    truncated: bool


def read_request(text: str, kind: InputKind = InputKind.AUTO) -> Request:
    """A topic, a question, or JSON: `{"topic"}`, `{"question"}`, `{"messages"}` or a list of messages.

    Raises InputError; a message list that cannot be a prompt raises its subclass CandidateRefused.
    """
    stripped = text.strip()
    if stripped[:1] in ("{", "["):
        with suppress(json.JSONDecodeError):
            return _structured_request(_parsed_json(stripped))
    if not stripped:
        raise InputError("the input is empty: give a topic, a question, or messages as JSON")
    render_prompt(stripped)  # refuses what is not Unicode
    is_question = stripped.endswith("?") if kind is InputKind.AUTO else kind is InputKind.QUESTION
    return Request(messages=(Message("user", stripped),)) if is_question else Request(topic=stripped)


def _parsed_json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise  # plain text that happens to start with a bracket
    except (ValueError, RecursionError) as error:
        raise InputError(f"the input cannot be read as JSON: {error}") from error


def _structured_request(value: object) -> Request:
    if isinstance(value, dict):
        for name in ("topic", "question"):
            if isinstance(value.get(name), str):
                return read_request(value[name], InputKind(name))
        value = value.get("messages")
    prompt = render_prompt(value) if value else ""
    if not prompt or isinstance(prompt, str):
        raise InputError('a JSON input needs one of "topic", "question" or "messages"')
    return Request(messages=prompt)


class PreferenceRecipe:
    """The recipe over three models; one object serves any number of runs, which share its concurrency limit."""

    def __init__(
        self,
        *,
        writer: ChatModel,
        responder: ChatModel,
        scorer: Scorer,
        settings: RecipeSettings,
        max_concurrency: int,
    ) -> None:
        self._writer = writer
        self._responder = responder
        self._scorer = scorer
        self._settings = settings
        self._slots = asyncio.Semaphore(max_concurrency)

    async def turns(self, request: Request, record: GenerationRecord) -> AsyncGenerator[list[Candidate], None]:
        """The scored candidates of each question, in the order of the questions. Raises ModelError when it is fatal."""
        questions = await self._questions(request, record)
        record.counts["questions"] += len(questions)
        tasks = [asyncio.create_task(self._candidates(question, record)) for question in questions]
        try:
            async for candidates in _in_order(tasks):
                record.counts["candidates"] += len(candidates)
                if candidates:
                    yield candidates
        finally:
            await _cancel(tasks)

    async def _questions(self, request: Request, record: GenerationRecord) -> list[Question]:
        if request.topic is None:
            return [Question(0, request.messages)]
        record.counts["topics"] += 1
        topic = request.topic
        subtopics = await self._subtopics(topic, record)
        record.counts["subtopics"] += len(subtopics)
        lists = await _all(self._questions_about(subtopic, record) for subtopic in subtopics)
        found = [(subtopic, text) for subtopic, texts in zip(subtopics, lists, strict=True) for text in texts]
        return [
            Question(index, (Message("user", text),), topic, subtopic) for index, (subtopic, text) in enumerate(found)
        ]

    async def _subtopics(self, topic: str, record: GenerationRecord) -> list[str]:
        count = self._settings.n_subtopics
        prompt = prompts.load("subtopics").render(topic=topic, n_subtopics=count)
        reply = await self._asked(self._writer, StepName.SUBTOPICS, topic, _user(prompt), record)
        return _parsed_list(parse_terms, reply, count, StepName.SUBTOPICS, topic, record)

    async def _questions_about(self, subtopic: str, record: GenerationRecord) -> list[str]:
        count = self._settings.n_questions
        prompt = prompts.load("questions").render(sub_topic=subtopic, n_questions=count)
        reply = await self._asked(self._writer, StepName.QUESTIONS, subtopic, _user(prompt), record)
        return _parsed_list(parse_lines, reply, count, StepName.QUESTIONS, subtopic, record)

    async def _candidates(self, question: Question, record: GenerationRecord) -> list[Candidate]:
        paired = self._settings.responses is ResponseMode.PAIRED
        responses = await (self._both if paired else self._each)(question, record)
        record.counts["responses"] += len(responses)
        scored = await _all(self._scored(question, response, record) for response in responses)
        return [candidate for candidate in scored if candidate is not None]

    async def _both(self, question: Question, record: GenerationRecord) -> list[Response]:
        prompt = prompts.load("responses").render(question=question.text)
        messages = (*question.messages[:-1], Message("user", prompt))
        reply = await self._asked(self._responder, StepName.RESPONSES, question.text, messages, record)
        if reply is None:
            return []
        try:
            texts = parse_two_responses(reply.text)
        except ParseError as error:
            record.failed(_unparsable(StepName.RESPONSES, question.text, error))
            return []
        cut = reply.finish_reason == "length"
        both = [
            Response(0, texts[0], reply.model, truncated=False),
            Response(1, texts[1], reply.model, truncated=cut),
        ]
        return [response for response in both if self._usable(response, question, record)]

    async def _each(self, question: Question, record: GenerationRecord) -> list[Response]:
        indices = range(self._settings.n_responses)
        responses = await _all(self._one(question, index, record) for index in indices)
        return [response for response in responses if response is not None]

    async def _one(self, question: Question, index: int, record: GenerationRecord) -> Response | None:
        seed = None if self._settings.seed is None else self._settings.seed + index
        reply = await self._asked(
            self._responder, StepName.RESPONSES, question.text, question.messages, record, seed=seed
        )
        if reply is None:
            return None
        response = Response(index, reply.text.strip(), reply.model, truncated=reply.finish_reason == "length")
        return response if self._usable(response, question, record) else None

    def _usable(self, response: Response, question: Question, record: GenerationRecord) -> bool:
        reason = None
        if not response.text:
            reason = FailureReason.EMPTY_REPLY
        elif response.truncated and not self._settings.keep_truncated:
            reason = FailureReason.TRUNCATED_REPLY
        if reason is not None:
            detail = f"response {response.index} of {response.model}"
            record.failed(Failure(StepName.RESPONSES, question.text, reason, detail, response.text))
        return reason is None

    async def _scored(self, question: Question, response: Response, record: GenerationRecord) -> Candidate | None:
        def spent(reply: ChatReply) -> None:
            record.spent(StepName.REWARDS, reply)

        try:
            async with self._slots:
                score = await self._scorer.score(question.messages, response.text, spent)
        except ModelError as error:
            _record_model_error(StepName.REWARDS, question.text, error, record)
            return None
        except ParseError as error:
            record.failed(_unparsable(StepName.REWARDS, question.text, error))
            return None
        return _candidate(question, response, score)

    async def _asked(
        self,
        model: ChatModel,
        step: StepName,
        subject: str,
        messages: Sequence[Message],
        record: GenerationRecord,
        *,
        seed: int | None = None,
    ) -> ChatReply | None:
        try:
            async with self._slots:
                reply = await model.complete(messages, seed=self._settings.seed if seed is None else seed)
        except ModelError as error:
            _record_model_error(step, subject, error, record)
            return None
        record.spent(step, reply)
        return reply


def _candidate(question: Question, response: Response, score: Score) -> Candidate:
    return Candidate(
        example_id="",
        turn_id=f"question-{question.index}",
        candidate_index=response.index,
        prompt=question.messages,
        response=response.text,
        score=score.value,
        attributes=score.attributes,
        model=response.model,
        metadata={
            "topic": question.topic,
            "subtopic": question.subtopic,
            "question_index": question.index,
            "reward_model": score.model,
            "truncated": response.truncated,
        },
    )


def _record_model_error(step: StepName, subject: str, error: ModelError, record: GenerationRecord) -> None:
    record.failed(Failure(step, subject, FailureReason.MODEL_ERROR, str(error)))
    if error.fatal:
        raise error


def _unparsable(step: StepName, subject: str, error: ParseError) -> Failure:
    return Failure(step, subject, FailureReason.UNPARSABLE_REPLY, error.reason, error.reply)


def _parsed_list(
    parse: Callable[[str, int], list[str]],
    reply: ChatReply | None,
    count: int,
    step: StepName,
    subject: str,
    record: GenerationRecord,
) -> list[str]:
    if reply is None:
        return []
    try:
        items = parse(reply.text, count)
    except ParseError as error:
        record.failed(_unparsable(step, subject, error))
        return []
    # The last item of a list that was cut is cut too.
    distinct = deduplicate(items[:-1] if reply.finish_reason == "length" else items, str.casefold)
    if len(distinct) < count:
        record.counts[f"missing_{step}"] += count - len(distinct)
    return distinct[:count]


def _user(text: str) -> list[Message]:
    return [Message("user", text)]


async def _all(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Every result, in order; when one fails the others are cancelled, not left behind."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)


async def _in_order(tasks: Sequence[asyncio.Task[T]]) -> AsyncGenerator[T, None]:
    """Results in the order of the tasks, as soon as they are there; when one fails, those that are done still come."""
    for position, task in enumerate(tasks):
        try:
            result = await task
        except ModelError:
            await _cancel(tasks)
            for other in tasks[position + 1 :]:
                if not other.cancelled() and other.exception() is None:
                    yield other.result()
            raise
        yield result


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
