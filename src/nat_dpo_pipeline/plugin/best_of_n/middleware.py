"""The `best_of_n` middleware: a function is called several times, its results are scored, recorded, one is returned."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from uuid import uuid4

from nat.plugin_api import Builder, FunctionMiddleware, FunctionMiddlewareContext

from nat_dpo_pipeline.core.candidates import Prompt
from nat_dpo_pipeline.core.rewards import agreement
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.scorers import Score
from nat_dpo_pipeline.plugin.best_of_n.ceiling import Ceiling, Troubles
from nat_dpo_pipeline.plugin.best_of_n.repeating import answered_by, has_result
from nat_dpo_pipeline.plugin.best_of_n.scoring import Scored, Scoring
from nat_dpo_pipeline.plugin.best_of_n.seen_prompts import SeenPrompts, common_prompt
from nat_dpo_pipeline.plugin.best_of_n.texts import prompt_of, text_of
from nat_dpo_pipeline.plugin.capture import Turn
from nat_dpo_pipeline.plugin.middleware_config import BestOfNConfig, PromptSource, Returned
from nat_dpo_pipeline.plugin.nat_api import streams_one_result
from nat_dpo_pipeline.plugin.varying import varied, vary_clients

CallNext = Callable[..., Awaitable[object]]
CallNextStream = Callable[..., AsyncIterator[object]]


@asynccontextmanager
async def best_of_n_middleware(config: BestOfNConfig, builder: Builder) -> AsyncIterator["BestOfN"]:
    """The middleware, with its scorer as long as the context. Raises ConfigurationError for names that do not exist."""
    _check_names(config, builder)
    if config.vary is not None:
        vary_clients(builder, config.vary.llm)
    ceiling = Ceiling(config)
    async with AsyncExitStack() as stack:
        scorer = config.scorer_config()
        scoring = None if scorer is None else Scoring(config, scorer, builder, stack, ceiling.spent)
        yield BestOfN(config, scoring, ceiling)


def _check_names(config: BestOfNConfig, builder: Builder) -> None:
    """NAT builds a middleware before what it refers to, and tells by name what is still to come."""
    there = {*getattr(builder, "completed_components", ()), *getattr(builder, "remaining_components", ())}
    groups = {name for name, group in there if group == "function_groups"}
    for group, name in config.names() if there else ():
        if (name, group) not in there and name.partition("__")[0] not in groups:
            raise ConfigurationError(f"best_of_n names {name!r}, which is not under {group}:")


@dataclass(frozen=True, slots=True)
class _Answer:
    """A result of the function; `call` is the number of the call that gave it."""

    call: int
    result: object
    seen: SeenPrompts


class BestOfN(FunctionMiddleware):
    """See BestOfNConfig. What goes wrong in scoring and in some of the calls costs candidates, not the answer."""

    def __init__(self, config: BestOfNConfig, scoring: Scoring | None, ceiling: Ceiling) -> None:
        super().__init__()
        self._config = config
        self._scoring = scoring
        self._ceiling = ceiling
        self._troubles = Troubles()
        # One for each kind of draw: which calls are sampled does not depend on what is returned.
        self._samples = random.Random(config.seed)  # noqa: S311 - not for cryptography
        self._picks = random.Random(config.seed)  # noqa: S311

    def __repr__(self) -> str:
        """As NAT logs it."""
        return f"best_of_n(n={self._config.n})"

    async def function_middleware_invoke(
        self, *args: object, call_next: CallNext, context: FunctionMiddlewareContext, **kwargs: object
    ) -> object:
        scoring = self._scoring
        if scoring is None or not self._is_sampled(scoring):
            return await call_next(*args, **kwargs)
        answers = await self._answers(lambda: call_next(*args, **kwargs))
        given = args[0] if len(args) == 1 and not kwargs else [*args, *kwargs.values()]
        try:
            chosen = await self._recorded(scoring, given, answers, context.name)
        except Exception as error:  # noqa: BLE001 - whatever a foreign result, scorer or subscriber raises
            self._troubles.note("a turn could not be scored and recorded", error)
            chosen = answers[0]
        return chosen.result

    async def function_middleware_stream(
        self, *args: object, call_next: CallNextStream, context: FunctionMiddlewareContext, **kwargs: object
    ) -> AsyncIterator[object]:
        """What streams is with the caller before it could be scored: it passes as it is. One result is no stream."""
        if not streams_one_result(call_next):
            async for chunk in call_next(*args, **kwargs):
                yield chunk
            return

        async def result(*args: object, **kwargs: object) -> object:
            (only,) = [chunk async for chunk in call_next(*args, **kwargs)]
            return only

        yield await self.function_middleware_invoke(*args, call_next=result, context=context, **kwargs)

    def _is_sampled(self, scoring: Scoring) -> bool:
        # A scorer that is wrapped too would be scored by itself for ever.
        if scoring.has_ended or scoring.is_at_work:
            return False
        return self._samples.random() < self._config.sample_rate and self._ceiling.admits()

    async def _answers(self, call: Callable[[], Awaitable[object]]) -> list[_Answer]:
        """The results there are, by the number of the call. Raises what the first call raised when there are none."""
        seen = [SeenPrompts() for _ in range(self._config.n)]
        if self._config.n == 1:
            with seen[0].watching(), self._varied(0):
                result = await call()
            return [_Answer(0, result, seen[0])]
        slots = asyncio.Semaphore(self._config.calls_at_once or self._config.n)

        async def one(number: int) -> object:
            async with slots:
                with seen[number].watching(), self._varied(number):
                    return await call()

        # Each task has a copy of the context, so what one call pushes has the function as its parent, not another call.
        tasks = [asyncio.create_task(one(number)) for number in range(self._config.n)]
        await answered_by(tasks, self._config.max_seconds, first=self._config.returns is Returned.FIRST)
        self._note_failures(tasks)
        answers = [
            _Answer(number, task.result(), seen[number]) for number, task in enumerate(tasks) if has_result(task)
        ]
        if not answers:
            tasks[0].result()
        return answers

    def _varied(self, number: int) -> AbstractContextManager[None]:
        vary = self._config.vary
        return nullcontext() if vary is None else varied(vary.llm, vary.sampling(number))

    def _note_failures(self, tasks: Sequence["asyncio.Task[object]"]) -> None:
        for task in tasks:
            if not task.done() or task.cancelled():
                self._troubles.note("a call was given up after max_seconds")
            elif error := task.exception():
                self._troubles.note("a call of the function failed", error)

    async def _recorded(self, scoring: Scoring, given: object, answers: Sequence[_Answer], function: str) -> _Answer:
        """Score the answers and push them; which of them is returned."""
        texts = [text_of(answer.result) for answer in answers]
        prompt = self._prompt(given, answers, texts)
        scored = await scoring.scores(prompt_of(given) if prompt is None else prompt, texts)
        chosen = self._chosen(answers, scored)
        if prompt is None:
            self._troubles.note("a turn is not recorded, as there is no prompt that the model saw in all calls")
        else:
            self._push(prompt, list(zip(answers, texts, scored, strict=True)), chosen, function)
        return chosen

    def _prompt(self, given: object, answers: Sequence[_Answer], texts: Sequence[str]) -> Prompt | None:
        """What the answers are recorded as answers to; None when only what the model saw would do."""
        source = self._config.prompt
        seen = (
            None if source is PromptSource.INPUT else common_prompt(zip((a.seen for a in answers), texts, strict=True))
        )
        return prompt_of(given) if seen is None and source is not PromptSource.LLM else seen

    def _chosen(self, answers: Sequence[_Answer], scored: Sequence[Scored]) -> _Answer:
        if self._config.returns is Returned.RANDOM:
            return self._picks.choice(answers)
        ranked = [(one.value, answer) for answer, one in zip(answers, scored, strict=True) if isinstance(one, Score)]
        if self._config.returns is Returned.FIRST or not ranked:
            return answers[0]
        return max(ranked, key=lambda one: one[0])[1]

    def _push(
        self, prompt: Prompt, candidates: Sequence[tuple[_Answer, str, Scored]], chosen: _Answer, function: str
    ) -> None:
        turn = Turn(prompt, str(uuid4()), 0, self._config.step_name)
        agreed = iter(agreement([one.members for *_, one in candidates if isinstance(one, Score)]))
        for answer, text, one in candidates:
            facts: dict[str, object] = {"function": function, "call": answer.call, "returned": answer is chosen}
            if self._config.vary is not None and self._config.vary.temperatures:
                facts["temperature"] = self._config.vary.sampling(answer.call).temperature
            model = answer.seen.model_behind(text)
            if isinstance(one, Score):
                facts |= {"reward_model": one.model} | _members(one, next(agreed))
                turn.add(text, score=one.value, model=model, attributes=one.attributes, metadata=facts)
            else:
                self._troubles.note("a result was not scored", one)
                turn.add(text, score=None, model=model, metadata=facts)
        turn.push()


def _members(score: Score, agreed: float | None) -> dict[str, object]:
    return {"member_scores": dict(score.members), "agreement": agreed} if score.members else {}
