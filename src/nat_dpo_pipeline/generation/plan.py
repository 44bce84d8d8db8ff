"""What a run will ask for, estimated before anything is sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from nat_dpo_pipeline.generation import prompts
from nat_dpo_pipeline.generation.record import ModelUsage
from nat_dpo_pipeline.generation.settings import Price, RecipeSettings, ResponseMode, StepName

CHARACTERS_A_TOKEN = 4
#: How long replies are taken to be, in tokens, where no `max_tokens` is lower.
SUBTOPIC_TOKENS = 4
QUESTION_TOKENS = 20
RESPONSE_TOKENS = 350
JUDGEMENT_TOKENS = 150
GENRM_TOKENS = 2000
REWARD_TOKENS = 1


@dataclass(frozen=True, slots=True)
class InputCounts:
    """What the inputs of a run are, and how many characters the topics and questions among them have together."""

    topics: int = 0
    questions: int = 0
    malformed: int = 0
    topic_characters: int = 0
    question_characters: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """Models that share calls, by name with their weight; no reply is longer than `max_tokens`."""

    llms: Mapping[str, float]
    max_tokens: int | None = None

    def reply(self, tokens: float, max_tokens: int | None = None) -> float:
        """The length of a reply of `tokens`; `max_tokens` is that of the step, which goes before the model's."""
        bound = max_tokens or self.max_tokens
        return tokens if bound is None else min(tokens, bound)


@dataclass(frozen=True, slots=True)
class Scoring:
    """Calls of a scorer: one a response; when it compares, one about every two in both orders, or one about all."""

    asked: Asked
    reply_tokens: float
    instructions: int = 0
    compares: bool = False
    together: bool = False


@dataclass(frozen=True, slots=True)
class PlannedCalls:
    """The calls of one step to one model, or to several that share them. `cost` is None without all their prices."""

    step: StepName
    llms: Mapping[str, float]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run asks for when nothing goes wrong: the calls are exact, tokens and cost are estimates."""

    inputs: InputCounts
    questions: int
    responses: int
    rows: tuple[PlannedCalls, ...]
    prices: Mapping[str, Price]

    def calls(self) -> dict[str, int]:
        """How many calls by step."""
        steps = dict.fromkeys(str(row.step) for row in self.rows)
        return {step: sum(row.calls for row in self.rows if row.step == step) for step in steps}

    @property
    def cost(self) -> float | None:
        """None unless every model has a price."""
        costs = [row.cost for row in self.rows if row.cost is not None]
        return sum(costs) if costs and len(costs) == len(self.rows) else None

    def tokens(self, step: str) -> tuple[float, float]:
        """Prompt and completion tokens of one call of a step."""
        rows = [row for row in self.rows if row.step == step]
        calls = sum(row.calls for row in rows) or 1
        return sum(row.prompt_tokens for row in rows) / calls, sum(row.completion_tokens for row in rows) / calls

    def calibrated(self, preview: "Plan", usage: Mapping[tuple[str, str], ModelUsage]) -> "Plan":
        """This plan, with its tokens corrected by what a preview used of what had been estimated for it."""
        return replace(self, rows=tuple(self._corrected(row, preview, usage) for row in self.rows))

    def _corrected(
        self, row: PlannedCalls, preview: "Plan", usage: Mapping[tuple[str, str], ModelUsage]
    ) -> PlannedCalls:
        used = [one for (step, _), one in usage.items() if step == row.step]
        answered = sum(one.requests - one.retries for one in used)
        prompt, completion = preview.tokens(row.step)
        if not answered or not sum(one.prompt_tokens for one in used):
            return row  # nothing was measured, or the server does not count
        prompt_tokens = row.prompt_tokens * sum(one.prompt_tokens for one in used) / answered / max(prompt, 1)
        completion_tokens = (
            row.completion_tokens * sum(one.completion_tokens for one in used) / answered / max(completion, 1)
        )
        return _planned(row.step, row.llms, row.calls, prompt_tokens, completion_tokens, self.prices)


def make_plan(
    settings: RecipeSettings,
    inputs: InputCounts,
    writer: Asked,
    responders: Sequence[Asked],
    scoring: Sequence[Scoring],
    prices: Mapping[str, Price],
) -> Plan:
    """The plan of a run of the recipe's own steps."""
    work = _Work(settings, inputs, writer, responders, scoring)
    steps = chain(work.lists(), work.responses(), work.rewards())
    rows = tuple(
        _planned(step, asked.llms, calls, prompt, completion, prices)
        for step, asked, calls, prompt, completion in steps
    )
    return Plan(
        inputs, work.questions, work.questions * work.responses_each, tuple(row for row in rows if row.calls), prices
    )


_Row = tuple[StepName, Asked, int, float, float]


class _Work:
    """How much there is to do, in calls and characters."""

    def __init__(
        self,
        settings: RecipeSettings,
        inputs: InputCounts,
        writer: Asked,
        responders: Sequence[Asked],
        scoring: Sequence[Scoring],
    ) -> None:
        self._settings = settings
        self._inputs = inputs
        self._writer = writer
        self._responders = responders
        self._scoring = scoring
        self._subtopics = inputs.topics * settings.n_subtopics
        written = self._subtopics * settings.n_questions
        self.questions = written + inputs.questions
        self._question_tokens = written * QUESTION_TOKENS + _tokens(inputs.question_characters)
        self._is_paired = settings.responses is ResponseMode.PAIRED
        self.responses_each = len(responders) * (2 if self._is_paired else settings.n_responses)

    def lists(self) -> Iterator[_Row]:
        settings, topics = self._settings, self._inputs.topics
        prompt = prompts.load("subtopics").render(topic="", n_subtopics=settings.n_subtopics)
        reply = self._reply(StepName.SUBTOPICS, self._writer, settings.n_subtopics * SUBTOPIC_TOKENS)
        tokens = topics * _tokens(len(prompt)) + _tokens(self._inputs.topic_characters)
        yield StepName.SUBTOPICS, self._writer, topics, tokens, topics * reply
        prompt = prompts.load("questions").render(sub_topic="", n_questions=settings.n_questions)
        reply = self._reply(StepName.QUESTIONS, self._writer, settings.n_questions * QUESTION_TOKENS)
        tokens = self._subtopics * (_tokens(len(prompt)) + SUBTOPIC_TOKENS)
        yield StepName.QUESTIONS, self._writer, self._subtopics, tokens, self._subtopics * reply

    def responses(self) -> Iterator[_Row]:
        prompt = len(prompts.load("responses").render(question="")) if self._is_paired else 0
        each = 1 if self._is_paired else self._settings.n_responses
        for asked in self._responders:
            reply = self._reply(StepName.RESPONSES, asked, (2 if self._is_paired else 1) * RESPONSE_TOKENS)
            calls = self.questions * each
            tokens = self._question_tokens * each + calls * _tokens(prompt)
            yield StepName.RESPONSES, asked, calls, tokens, calls * reply

    def rewards(self) -> Iterator[_Row]:
        count = self.responses_each
        replies = [self._reply(StepName.RESPONSES, asked, RESPONSE_TOKENS) for asked in self._responders]
        response = sum(replies) / len(replies)
        for scoring in self._scoring:
            each = 1 if scoring.together else count * (count - 1) if scoring.compares else count
            calls = self.questions * each
            besides = (count if scoring.together else 2 if scoring.compares else 1) * response + _tokens(
                scoring.instructions
            )
            tokens = self._question_tokens * each + calls * besides
            yield StepName.REWARDS, scoring.asked, calls, tokens, calls * scoring.asked.reply(scoring.reply_tokens)

    def _reply(self, step: StepName, asked: Asked, tokens: float) -> float:
        return asked.reply(tokens, self._settings.sampling.of(step).max_tokens)


def _tokens(characters: int) -> float:
    return characters / CHARACTERS_A_TOKEN


def _planned(
    step: StepName,
    llms: Mapping[str, float],
    calls: int,
    prompt_tokens: float,
    completion_tokens: float,
    prices: Mapping[str, Price],
) -> PlannedCalls:
    total = sum(llms.values())
    costs = [
        (prompt_tokens * prices[name].prompt + completion_tokens * prices[name].completion) / 1e6 * weight / total
        for name, weight in llms.items()
        if name in prices
    ]
    cost = sum(costs) if len(costs) == len(llms) else None
    return PlannedCalls(step, llms, calls, round(prompt_tokens), round(completion_tokens), cost)
