"""Scores for the results of a function; what goes wrong is on the result, and never raised."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import TypeVar

from nat.plugin_api import Builder

from nat_dpo_pipeline.core.messages import Message, Prompt
from nat_dpo_pipeline.errors import ConfigurationError, InputError, ModelError
from nat_dpo_pipeline.generation.chat import OnReply
from nat_dpo_pipeline.generation.scorers import Score, Scorer, TurnScorer
from nat_dpo_pipeline.plugin.middleware.repeating import ended_by
from nat_dpo_pipeline.plugin.middleware.seen_prompts import unwatched
from nat_dpo_pipeline.plugin.middleware_config import BestOfNConfig
from nat_dpo_pipeline.plugin.workflows.recipe import OpenModels
from nat_dpo_pipeline.plugin.workflows.scorer_settings import ScorerSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")
_AT_WORK: ContextVar[tuple["Scoring", ...]] = ContextVar("at_work", default=())
Scored = Score | BaseException


class Scoring:
    """A scorer whose models are opened when it is first needed and closed with `stack`.

    `has_ended` once no further score can be had, for example because a key is wrong.
    """

    def __init__(
        self, config: BestOfNConfig, scorer: ScorerSettings, builder: Builder, stack: AsyncExitStack, on_reply: OnReply
    ) -> None:
        self._config = config
        self._scorer_config = scorer
        self._builder = builder
        self._models = OpenModels(config, builder.get_llm_config, None, stack)
        self._on_reply = on_reply
        self._scorer: Scorer | TurnScorer | None = None
        self.has_ended = False

    @property
    def is_at_work(self) -> bool:
        """Whether this is asked from below a scorer of its own."""
        return self in _AT_WORK.get()

    async def scores(self, prompt: Prompt, texts: Sequence[str]) -> list[Scored]:
        """A score, or why there is none, for each of the texts. Equal texts are scored once."""
        different = list(dict.fromkeys(texts))
        messages = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        token = _AT_WORK.set((*_AT_WORK.get(), self))
        try:
            with unwatched():
                results = await self._scored(messages, different)
        finally:
            _AT_WORK.reset(token)
        self._note_end(results)
        by_text = dict(zip(different, results, strict=True))
        return [by_text[text] for text in texts]

    async def _scored(self, prompt: Sequence[Message], texts: Sequence[str]) -> list[Scored]:
        try:
            scorer = self._opened()
        except ConfigurationError as error:
            return [error] * len(texts)
        if isinstance(scorer, TurnScorer):
            return await self._compared(scorer, prompt, texts)
        tasks = [asyncio.create_task(scorer.score(prompt, text, self._on_reply)) for text in texts]
        await ended_by(tasks, self._config.max_scoring_seconds)
        return [self._outcome(task) for task in tasks]

    async def _compared(self, scorer: TurnScorer, prompt: Sequence[Message], texts: Sequence[str]) -> list[Scored]:
        if len(texts) < 2:
            return [InputError("all results are the same, so there is nothing to compare")] * len(texts)
        task = asyncio.create_task(scorer.score_turn(prompt, texts, self._on_reply))
        await ended_by([task], self._config.max_scoring_seconds)
        outcome = self._outcome(task)
        return [outcome] * len(texts) if isinstance(outcome, BaseException) else list(outcome)

    def _opened(self) -> Scorer | TurnScorer:
        if self._scorer is None:
            self._scorer = self._scorer_config.open(self._models.replicas, self._builder.get_function)
        return self._scorer

    def _outcome(self, task: "asyncio.Task[T]") -> T | BaseException:
        if not task.done() or task.cancelled():
            return TimeoutError(f"no score within {self._config.max_scoring_seconds:g} s")
        return task.exception() or task.result()

    def _note_end(self, results: Sequence[Scored]) -> None:
        for error in results:
            if isinstance(error, ConfigurationError) or (isinstance(error, ModelError) and error.fatal):
                self.has_ended = True
                logger.error("best_of_n: nothing can be scored any more, calls go straight through: %s", error)
                return
