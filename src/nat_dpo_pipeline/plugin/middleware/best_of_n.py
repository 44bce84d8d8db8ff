"""The `best_of_n` middleware: a function is called several times, its results are scored, recorded, one is returned."""

import contextvars
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from nat.plugin_api import Builder, FunctionMiddleware, FunctionMiddlewareContext

from nat_dpo_pipeline.core.messages import Prompt
from nat_dpo_pipeline.core.rewards import agreement
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.scorers import Score
from nat_dpo_pipeline.plugin.capture import Turn
from nat_dpo_pipeline.plugin.middleware.calling import Answer, Call, Calling, Calls
from nat_dpo_pipeline.plugin.middleware.ceiling import Ceiling, Troubles
from nat_dpo_pipeline.plugin.middleware.repeating import first_of, has_result
from nat_dpo_pipeline.plugin.middleware.scoring import Scored, Scoring
from nat_dpo_pipeline.plugin.middleware.seen_prompts import common_prompt
from nat_dpo_pipeline.plugin.middleware.texts import prompt_of
from nat_dpo_pipeline.plugin.middleware.unfinished import Unfinished
from nat_dpo_pipeline.plugin.middleware_config import BestOfNConfig, PromptSource, Returned
from nat_dpo_pipeline.plugin.nat_api import before_components_close, streams_one_result
from nat_dpo_pipeline.plugin.telemetry.late_steps import outliving_context
from nat_dpo_pipeline.plugin.varying import vary_clients

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
        middleware = BestOfN(config, scoring, ceiling, builder)
        try:
            yield middleware
        finally:
            await middleware.finish()


def _check_names(config: BestOfNConfig, builder: Builder) -> None:
    """NAT builds a middleware before what it refers to, and tells by name what is still to come."""
    there = {*getattr(builder, "completed_components", ()), *getattr(builder, "remaining_components", ())}
    groups = {name for name, group in there if group == "function_groups"}
    for group, name in config.names() if there else ():
        if (name, group) not in there and name.partition("__")[0] not in groups:
            raise ConfigurationError(f"best_of_n names {name!r}, which is not under {group}:")


Record = Callable[[Sequence[Answer]], Coroutine[Any, Any, Answer]]


class BestOfN(FunctionMiddleware):
    """See BestOfNConfig. What goes wrong in scoring and in some of the calls costs candidates, not the answer."""

    def __init__(self, config: BestOfNConfig, scoring: Scoring | None, ceiling: Ceiling, builder: Builder) -> None:
        super().__init__()
        self._config = config
        self._scoring = scoring
        self._ceiling = ceiling
        self._builder = builder
        self._troubles = Troubles()
        self._calling = Calling(config, self._troubles)
        self._unfinished = Unfinished(config.max_unfinished)
        self._is_waited_for = False
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
        given = args[0] if len(args) == 1 and not kwargs else [*args, *kwargs.values()]

        def call() -> Awaitable[object]:
            return call_next(*args, **kwargs)

        record = partial(self._chosen_and_recorded, scoring, prompt_of(given), context.name)
        if (behind := self._context_behind()) is not None:
            return await self._first(call, record, behind)
        return (await record(await self._answers(call))).result

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
        if self._samples.random() >= self._config.sample_rate:
            return False
        if not self._unfinished.has_room:
            self._troubles.note("a call goes straight through, as max_unfinished others are not finished")
            return False
        return self._ceiling.admits()

    def _context_behind(self) -> contextvars.Context | None:
        """Where what is left to do can be done when the caller has the answer; None when that has to wait for it."""
        is_known = self._config.n == 1 or self._config.returns is Returned.FIRST
        return outliving_context() if is_known else None

    async def _first(self, call: Call, record: Record, behind: contextvars.Context) -> object:
        """The first result; the other calls and the scores are not waited for, unless the first call fails."""
        if self._config.n == 1:
            only = await self._calling.once(call)
            self._go_on(record([only]), behind)
            return only.result
        calls = self._calling.begun(call, behind)
        await first_of(calls.tasks)
        rest = self._gathered_and_recorded(calls, record)
        if not has_result(calls.tasks[0]):
            return (await rest).result
        self._go_on(rest, behind)
        return calls.tasks[0].result().result

    async def _gathered_and_recorded(self, calls: Calls, record: Record) -> Answer:
        return await record(await self._calling.gathered(calls))

    def _go_on(self, work: Coroutine[Any, Any, Answer], behind: contextvars.Context) -> None:
        if not self._is_waited_for:
            # By now all is built that the work may need.
            before_components_close(self._builder, self.finish)
            self._is_waited_for = True
        self._unfinished.start(work, behind)

    async def finish(self) -> None:
        """Wait for what goes on behind answers, as long as scoring may take."""
        for _ in range(await self._unfinished.finish(self._config.max_scoring_seconds)):
            self._troubles.note("a turn is not recorded, as the process ended first")

    async def _answers(self, call: Call) -> list[Answer]:
        if self._config.n == 1:
            return [await self._calling.once(call)]
        return await self._calling.gathered(self._calling.begun(call))

    async def _chosen_and_recorded(
        self, scoring: Scoring, given: Prompt, function: str, answers: Sequence[Answer]
    ) -> Answer:
        """Score the answers and push them; which of them is returned."""
        try:
            prompt = self._prompt(given, answers)
            scored = await scoring.scores(given if prompt is None else prompt, [answer.text for answer in answers])
            chosen = self._chosen(answers, scored)
            self._push(prompt, answers, scored, chosen, function)
        except Exception as error:  # noqa: BLE001 - whatever a foreign scorer or subscriber raises
            self._troubles.note("a turn could not be scored and recorded", error)
            return answers[0]
        return chosen

    def _prompt(self, given: Prompt, answers: Sequence[Answer]) -> Prompt | None:
        """What the answers are recorded as answers to; None when only what the model saw would do."""
        source = self._config.prompt
        seen = None if source is PromptSource.INPUT else common_prompt((one.seen, one.text) for one in answers)
        return given if seen is None and source is not PromptSource.LLM else seen

    def _chosen(self, answers: Sequence[Answer], scored: Sequence[Scored]) -> Answer:
        if self._config.returns is Returned.RANDOM:
            return self._picks.choice(answers)
        ranked = [(one.value, answer) for answer, one in zip(answers, scored, strict=True) if isinstance(one, Score)]
        if self._config.returns is Returned.FIRST or not ranked:
            return answers[0]
        return max(ranked, key=lambda one: one[0])[1]

    def _push(
        self,
        prompt: Prompt | None,
        answers: Sequence[Answer],
        scored: Sequence[Scored],
        chosen: Answer,
        function: str,
    ) -> None:
        if prompt is None:
            self._troubles.note("a turn is not recorded, as there is no prompt that the model saw in all calls")
            return
        turn = Turn(prompt, str(uuid4()), 0, self._config.step_name)
        agreed = iter(agreement([one.members for one in scored if isinstance(one, Score)]))
        for answer, one in zip(answers, scored, strict=True):
            facts: dict[str, object] = {"function": function, "call": answer.call, "returned": answer is chosen}
            if self._config.vary is not None and self._config.vary.temperatures:
                facts["temperature"] = self._config.vary.sampling(answer.call).temperature
            model = answer.seen.model_behind(answer.text)
            response = answer.text if self._config.prompt is PromptSource.INPUT else _response(prompt, answer)
            if isinstance(one, Score):
                facts |= {"reward_model": one.model} | _members(one, next(agreed))
                turn.add(response, score=one.value, model=model, attributes=one.attributes, metadata=facts)
            else:
                self._troubles.note("a result was not scored", one)
                turn.add(response, score=None, model=model, metadata=facts)
        turn.push()


def _response(prompt: Prompt, answer: Answer) -> object:
    """Return an answer with the calls of tools before it, where there were any: the builder cuts such rollouts."""
    rollout = answer.seen.rollout(prompt, answer.text)
    return answer.text if rollout is None else [message.as_json() for message in rollout]


def _members(score: Score, agreed: float | None) -> dict[str, object]:
    return {"member_scores": dict(score.members), "agreement": agreed} if score.members else {}
