"""The two workflows: both push one TTC step per scored candidate and return a JSON summary."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial

from nat.plugin_api import Builder, Context

from nat_dpo_pipeline.core.candidates import Candidate
from nat_dpo_pipeline.errors import ConfigurationError, InputError, ModelError
from nat_dpo_pipeline.generation.inputs import read_request
from nat_dpo_pipeline.generation.journal import Journal
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.record import Failure, FailureReason, GenerationRecord
from nat_dpo_pipeline.generation.rows import RowKeys, read_row
from nat_dpo_pipeline.generation.settings import StepName
from nat_dpo_pipeline.generation.turns import Turn
from nat_dpo_pipeline.json_text import json_bytes
from nat_dpo_pipeline.plugin.nat_logs import evaluation_errors
from nat_dpo_pipeline.plugin.steps import push_candidate
from nat_dpo_pipeline.plugin.workflow_config import PreferenceDataConfig, ScoredCandidatesConfig
from nat_dpo_pipeline.plugin.workflows.recipe import OpenModels, open_recipe

logger = logging.getLogger(__name__)

_SECONDS_FOR_CALLS_UNDER_WAY = 10.0

Workflow = Callable[[str], Awaitable[str]]


@asynccontextmanager
async def preference_data_workflow(config: PreferenceDataConfig, builder: Builder) -> AsyncIterator[Workflow]:
    """The workflow over the configured models, whose connections close with it."""
    async with AsyncExitStack() as stack:
        stack.enter_context(evaluation_errors())
        journal = None if config.journal is None else stack.enter_context(closing(Journal(config.journal)))
        try:
            models = OpenModels(config, builder.get_llm_config, journal, stack, config.journal_by, config.ask_together)
            recipe = open_recipe(config, models, builder.get_function)
            if journal is not None:
                stack.push_async_callback(journal.finish, _SECONDS_FOR_CALLS_UNDER_WAY)
        except ConfigurationError as error:
            # NAT shows a traceback for what fails while it builds, one line for what fails while it runs.
            yield partial(_refuse, error=error)
        else:
            yield partial(generate, recipe=recipe, config=config, journal=journal)


async def _refuse(text: str, error: ConfigurationError) -> str:
    raise error


async def generate(
    text: str, recipe: PreferenceRecipe, config: PreferenceDataConfig, journal: Journal | None = None
) -> str:
    """Run the recipe on one input; a malformed input is counted in the summary.

    Raises ModelError when models failed and not one candidate came of it.
    """
    record = GenerationRecord(prices=config.prices)
    manager = Context.get().intermediate_step_manager
    try:
        request = read_request(text, config.input_kind, run=0 if journal is None else journal.next_run(text))
    except InputError as error:
        _left_out(text, error, record)
        return _summary(record)
    for index, turn in enumerate(await recipe.turns(request, record)):
        for candidate in _to_pair(turn):
            push_candidate(manager, config.ttc_step_name, candidate, index)
    _raise_if_in_vain(record)
    return _summary(record)


def _to_pair(turn: Turn) -> tuple[Candidate, ...]:
    return () if turn.set_aside else turn.candidates


def _raise_if_in_vain(record: GenerationRecord) -> None:
    reasons = (FailureReason.MODEL_ERROR, FailureReason.REQUEST_REFUSED)
    broken = [failure for failure in record.failures if failure.reason in reasons]
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
    record.add(Failure(StepName.INPUT, text[:200], FailureReason.MALFORMED_INPUT, str(error)))
    logger.warning("a row is left out: %s", error)


def _summary(record: GenerationRecord) -> str:
    return json_bytes(record.summary()).decode()
