"""The two workflows: both push one TTC step per scored candidate and return a JSON summary."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial

from nat.plugin_api import Builder, Context

from nat_dpo_pipeline.core.rewards import weights_named
from nat_dpo_pipeline.errors import ConfigurationError, InputError, ModelError
from nat_dpo_pipeline.generation.chat import OpenAIChatModel
from nat_dpo_pipeline.generation.preference import PreferenceRecipe, read_request
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord, StepName
from nat_dpo_pipeline.generation.rows import RowKeys, read_row
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.plugin.config import PreferenceDataConfig, ScoredCandidatesConfig
from nat_dpo_pipeline.plugin.models import open_model
from nat_dpo_pipeline.plugin.nat_logs import evaluation_errors
from nat_dpo_pipeline.plugin.steps import push_candidate

logger = logging.getLogger(__name__)


Workflow = Callable[[str], Awaitable[str]]


@asynccontextmanager
async def preference_data_workflow(config: PreferenceDataConfig, builder: Builder) -> AsyncIterator[Workflow]:
    """The workflow over the configured models, whose connections close with it."""
    async with AsyncExitStack() as stack:
        stack.enter_context(evaluation_errors())
        try:
            recipe = open_recipe(config, builder, stack)
        except ConfigurationError as error:
            # NAT shows a traceback for what fails while it builds, one line for what fails while it runs.
            yield partial(_refuse, error=error)
        else:
            yield partial(generate, recipe=recipe, config=config)


def open_recipe(config: PreferenceDataConfig, builder: Builder, stack: AsyncExitStack) -> PreferenceRecipe:
    """The recipe over models that `stack` closes. Raises ConfigurationError."""

    def opened(name: str) -> OpenAIChatModel:
        model = open_model(
            name,
            builder.get_llm_config(name),
            timeout_seconds=config.request_timeout,
            max_retries=config.max_retries,
        )
        stack.push_async_callback(model.aclose)
        return model

    weights = config.reward if isinstance(config.reward, dict) else weights_named(config.reward)
    writer = opened(config.writer_llm)
    return PreferenceRecipe(
        writer=writer,
        responder=opened(config.responder_llm) if config.responder_llm else writer,
        scorer=RewardModelScorer(opened(config.reward_llm), weights),
        settings=config.recipe_settings(),
        max_concurrency=config.max_concurrency,
    )


async def _refuse(text: str, error: ConfigurationError) -> str:
    raise error


async def generate(text: str, recipe: PreferenceRecipe, config: PreferenceDataConfig) -> str:
    """Run the recipe on one input. Raises InputError, and ModelError when not one candidate came of it."""
    record = GenerationRecord()
    manager = Context.get().intermediate_step_manager
    request = read_request(text, config.input_kind)
    try:
        async with aclosing(recipe.turns(request, record)) as turns:
            index = 0
            async for candidates in turns:
                for candidate in candidates:
                    push_candidate(manager, config.ttc_step_name, candidate, index)
                index += 1
    except ModelError as error:
        record.stopped = str(error)
    _raise_if_in_vain(record)
    return _summary(record)


def _raise_if_in_vain(record: GenerationRecord) -> None:
    broken = [failure for failure in record.failures if failure.reason is FailureReason.MODEL_ERROR]
    if not record.counts["candidates"] and broken:
        raise ModelError(f"no candidate was made: {broken[0].detail}")


async def emit_row(text: str, config: ScoredCandidatesConfig) -> str:
    """Push the candidates of one row; what is malformed is counted in the summary."""
    record = GenerationRecord()
    manager = Context.get().intermediate_step_manager
    keys = RowKeys(config.prompt_key, config.candidates_key, config.response_key, config.score_key)
    try:
        candidates = read_row(text, keys, record)
    except InputError as error:
        record.failed(Failure(StepName.INPUT, text[:200], FailureReason.MALFORMED_INPUT, str(error)))
        logger.warning("a row is left out: %s", error)
        candidates = []
    for candidate in candidates:
        push_candidate(manager, config.ttc_step_name, candidate, 0)
    record.counts["candidates"] += len(candidates)
    return _summary(record)


def _summary(record: GenerationRecord) -> str:
    return json.dumps(record.summary(), ensure_ascii=False)
