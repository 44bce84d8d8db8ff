"""The two workflows: both push one TTC step per scored candidate and return a JSON summary."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing
from functools import cache, partial

from nat.plugin_api import Builder, Context, LLMBaseConfig

from nat_dpo_pipeline.core.rewards import weights_named
from nat_dpo_pipeline.errors import ConfigurationError, InputError, ModelError
from nat_dpo_pipeline.generation.chat import ChatModel
from nat_dpo_pipeline.generation.journal import Journal, JournalledModel
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.preference import PreferenceRecipe, read_request
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord, StepName
from nat_dpo_pipeline.generation.rows import RowKeys, read_row
from nat_dpo_pipeline.generation.scorers import RewardModelScorer
from nat_dpo_pipeline.plugin.config import ModelLimitsConfig, PreferenceDataConfig, ScoredCandidatesConfig
from nat_dpo_pipeline.plugin.models import open_model, retries_of
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
    journal = None if config.journal is None else stack.enter_context(closing(Journal(config.journal)))

    @cache  # one model, one set of limits, however many roles it plays
    def opened(name: str) -> ChatModel:
        llm = _llm_named(name, builder)
        model = open_model(name, llm, timeout_seconds=config.request_timeout)
        stack.push_async_callback(model.aclose)
        limited = LimitedModel(model, limits_of(name, llm, config))
        return limited if journal is None else JournalledModel(limited, journal, model.identity)

    weights = config.reward if isinstance(config.reward, dict) else weights_named(config.reward)
    return PreferenceRecipe(
        writer=opened(config.writer_llm),
        responder=opened(config.responder_llm or config.writer_llm),
        scorer=RewardModelScorer(opened(config.reward_llm), weights),
        settings=config.recipe_settings(),
        max_concurrency=config.max_concurrency,
    )


def _llm_named(name: str, builder: Builder) -> LLMBaseConfig:
    try:
        return builder.get_llm_config(name)
    except ValueError as error:
        raise ConfigurationError(f"the workflow names the llm {name!r}, which is not under llms:") from error


def limits_of(name: str, llm: LLMBaseConfig, config: PreferenceDataConfig) -> Limits:
    """The limits of one model: what `limits` says, else the llm entry, else the workflow."""
    own = config.limits.get(name, ModelLimitsConfig())
    retries = next(count for count in (own.max_retries, retries_of(name, llm), config.max_retries) if count is not None)
    return Limits(
        max_concurrency=own.max_concurrency or config.max_concurrency,
        requests_per_minute=own.requests_per_minute,
        tokens_per_minute=own.tokens_per_minute,
        max_retries=retries,
        max_wait_seconds=own.max_wait_seconds,
    )


async def _refuse(text: str, error: ConfigurationError) -> str:
    raise error


async def generate(text: str, recipe: PreferenceRecipe, config: PreferenceDataConfig) -> str:
    """Run the recipe on one input; a malformed input is counted in the summary.

    Raises ModelError when models failed and not one candidate came of it.
    """
    record = GenerationRecord()
    manager = Context.get().intermediate_step_manager
    try:
        request = read_request(text, config.input_kind)
        async with aclosing(recipe.turns(request, record)) as turns:
            index = 0
            async for candidates in turns:
                for candidate in candidates:
                    push_candidate(manager, config.ttc_step_name, candidate, index)
                index += 1
    except InputError as error:
        _left_out(text, error, record)
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
        _left_out(text, error, record)
        candidates = []
    for candidate in candidates:
        push_candidate(manager, config.ttc_step_name, candidate, 0)
    record.counts["candidates"] += len(candidates)
    return _summary(record)


def _left_out(text: str, error: InputError, record: GenerationRecord) -> None:
    # Raising would end the whole evaluation at one bad row.
    record.failed(Failure(StepName.INPUT, text[:200], FailureReason.MALFORMED_INPUT, str(error)))
    logger.warning("a row is left out: %s", error)


def _summary(record: GenerationRecord) -> str:
    return json.dumps(record.summary(), ensure_ascii=False)
