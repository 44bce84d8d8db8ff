"""From the configuration of a `preference_data` workflow to the recipe over open models."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pkgutil import resolve_name
from typing import Protocol

from nat.plugin_api import LLMBaseConfig

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.generation.chat import ChatModel, Waiting
from nat_dpo_pipeline.generation.journal import Journal, RecordedModel, ReplayedModel
from nat_dpo_pipeline.generation.limits import LimitedModel, Limits
from nat_dpo_pipeline.generation.pool import ModelPool
from nat_dpo_pipeline.generation.preference import PreferenceRecipe
from nat_dpo_pipeline.generation.settings import AskTogether, JournalBy, Price, Spread
from nat_dpo_pipeline.generation.steps import Pipeline
from nat_dpo_pipeline.generation.together import SampledTogether
from nat_dpo_pipeline.plugin.workflow_config import (
    ModelLimitsConfig,
    ModelPoolConfig,
    PreferenceDataConfig,
    llms_in,
)
from nat_dpo_pipeline.plugin.workflows.models import open_model, retries_of

_FEWEST_WORKERS = 16


class AskingConfig(Protocol):
    """What a configuration says of how its models are asked."""

    limits: dict[str, ModelLimitsConfig]
    prices: dict[str, Price]
    max_concurrency: int
    request_timeout: float
    max_retries: int


class OpenModels:
    """The models of a component, each opened once, with one set of limits, however many roles it plays."""

    def __init__(
        self,
        config: AskingConfig,
        llm_named: Callable[[str], LLMBaseConfig],
        journal: Journal | None,
        stack: AsyncExitStack,
        journal_by: JournalBy = JournalBy.MODEL,
        ask_together: AskTogether = AskTogether.NEVER,
    ) -> None:
        self._config = config
        self._ask_together = ask_together
        self._journal_by = journal_by
        self._llm_named = llm_named
        self._journal = journal
        self._stack = stack
        self._opened: dict[str, ChatModel] = {}
        self._limited: list[LimitedModel] = []

    def named(self, name: str) -> ChatModel:
        """Raises ConfigurationError for an llm that is not there, has no key, or is of a type that is not spoken."""
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def pool(self, config: ModelPoolConfig) -> ModelPool:
        weights = list(config.models.values()) if config.use is Spread.WEIGHTED else None
        return ModelPool([self.named(name) for name in config.models], weights)

    def replicas(self, names: Sequence[str]) -> ChatModel:
        """One model behind one or several endpoints; scores of different models cannot be compared."""
        if len(names) == 1:
            return self.named(names[0])
        models = {str(getattr(self._llm(name), "model_name", name)) for name in names}
        if len(models) > 1:
            raise ConfigurationError(
                f"a scorer's llms must be one model behind several endpoints, got {', '.join(sorted(models))}: "
                "different reward models go into a scorer of kind ensemble"
            )
        return ModelPool([self.named(name) for name in names])

    def waiting(self) -> list[Waiting]:
        """The models that are left alone at the moment."""
        return [one for model in self._limited if (one := model.waiting()) is not None]

    def _open(self, name: str) -> ChatModel:
        llm = self._llm(name)
        model = open_model(name, llm, timeout_seconds=self._config.request_timeout)
        self._stack.push_async_callback(model.aclose)
        by_server = self._journal_by is JournalBy.SERVER
        identity = model.identity_at_server if by_server else model.identity
        recorded = model if self._journal is None else RecordedModel(model, self._journal, identity)
        limited = LimitedModel(recorded, limits_of(name, llm, self._config), model.served, unrecorded=model)
        self._limited.append(limited)
        together = self._ask_together is AskTogether.AUTO
        asked = SampledTogether(limited, model.may_be_one_request) if together else limited
        if self._journal is None:
            return asked
        return ReplayedModel(asked, self._journal, identity, None if by_server else model.identity_at_server)

    def _llm(self, name: str) -> LLMBaseConfig:
        try:
            return self._llm_named(name)
        except (KeyError, ValueError) as error:
            raise ConfigurationError(f"the workflow names the llm {name!r}, which is not under llms:") from error


def open_recipe(
    config: PreferenceDataConfig,
    models: OpenModels,
    function_named: Callable[[str], Awaitable[object]],
) -> PreferenceRecipe:
    """The recipe as configured. Raises ConfigurationError."""
    responders = config.responder_llm or config.writer_llm
    everyone = responders.use is Spread.ALL
    return PreferenceRecipe(
        writer=models.pool(config.writer_llm),
        responders=[models.named(name) for name in responders.models] if everyone else [models.pool(responders)],
        scorer=config.scorer_config().open(models.replicas, function_named),
        settings=config,
        adapt=None if config.pipeline is None else function_at(config.pipeline),
        workers=_workers(config),
        waiting=models.waiting,
    )


def function_at(path: str) -> Callable[[Pipeline], Pipeline]:
    """The function that adapts a pipeline. Raises ConfigurationError."""
    try:
        function: Callable[[Pipeline], Pipeline] = resolve_name(path)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"pipeline: {path!r} cannot be imported ({error}); it must be package.module.function, and the package "
            "installed or on PYTHONPATH"
        ) from error
    if not callable(function):
        raise ConfigurationError(f"pipeline: {path!r} is not a function")
    return function


def _workers(config: PreferenceDataConfig) -> int:
    """So many items a step that every model has the next call ready when one ends."""
    names = set(llms_in(config))
    most = sum(config.limits.get(name, ModelLimitsConfig()).max_concurrency or config.max_concurrency for name in names)
    return max(2 * most, _FEWEST_WORKERS)


def limits_of(name: str, llm: LLMBaseConfig, config: AskingConfig) -> Limits:
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
