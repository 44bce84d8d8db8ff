"""The one door for the NAT names that its stable plugin API leaves out."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from pathlib import Path

from expandvars import expand
from nat.builder.context import ContextState
from nat.cli.register_workflow import register_trainer, register_trainer_adapter, register_trajectory_builder
from nat.cli.type_registry import GlobalTypeRegistry
from nat.data_models.config import Config
from nat.data_models.evaluate_runtime import EvaluationRunConfig, EvaluationRunOutput
from nat.data_models.evaluator import EvalInput, EvalInputItem
from nat.data_models.finetuning import (
    DPOItem,
    FinetuneConfig,
    OpenAIMessage,
    TrainerAdapterConfig,
    TrainerConfig,
    TrainingJobRef,
    TrainingJobStatus,
    TrainingStatusEnum,
    Trajectory,
    TrajectoryBuilderConfig,
    TrajectoryCollection,
)
from nat.data_models.intermediate_step import (
    IntermediateStep,
    IntermediateStepPayload,
    IntermediateStepType,
    StreamEventData,
    TraceMetadata,
    TTCEventData,
    UsageInfo,
)
from nat.data_models.token_usage import TokenUsageBaseModel
from nat.finetuning.interfaces import Trainer, TrainerAdapter, TrajectoryBuilder
from nat.observability.exporter.base_exporter import BaseExporter, IsolatedAttribute
from nat.runtime.loader import PluginTypes, discover_and_register_plugins
from nat.utils.data_models.schema_validator import validate_schema
from nat.utils.io.yaml_tools import yaml_load
from nat.utils.reactive.subject import Subject

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.yaml_text import parse_yaml

__all__ = [
    "BaseExporter",
    "Config",
    "ContextState",
    "DPOItem",
    "EvalInput",
    "EvalInputItem",
    "EvaluationRunConfig",
    "EvaluationRunOutput",
    "FinetuneConfig",
    "IntermediateStep",
    "IntermediateStepPayload",
    "IntermediateStepType",
    "IsolatedAttribute",
    "OpenAIMessage",
    "StreamEventData",
    "Subject",
    "TTCEventData",
    "TokenUsageBaseModel",
    "TraceMetadata",
    "Trainer",
    "TrainerAdapter",
    "TrainerAdapterConfig",
    "TrainerConfig",
    "TrainingJobRef",
    "TrainingJobStatus",
    "TrainingStatusEnum",
    "Trajectory",
    "TrajectoryBuilder",
    "TrajectoryBuilderConfig",
    "TrajectoryCollection",
    "UsageInfo",
    "before_components_close",
    "discovered_trainer_adapters",
    "load_config",
    "register_trainer",
    "register_trainer_adapter",
    "register_trajectory_builder",
    "registered_trainer_adapters",
    "registering",
    "streams_one_result",
]


def load_config(path: Path, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """The configuration in `path`, with values, given as YAML, put in at their dotted paths.

    NAT's own function for it logs the whole configuration, keys and all. Raises ConfigurationError, ValueError, OSError
    and YAMLError.
    """
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    # NAT's loader copies aliases, those of themselves too, without an end.
    text = expand(path.read_text(encoding="utf-8"), surrounded_vars_only=True)
    if not isinstance(parse_yaml(text, repr(str(path))), dict):
        raise ConfigurationError(f"{str(path)!r} must be a mapping of sections, such as workflow and llms")
    source = yaml_load(path)
    for name, value in overrides:
        *folders, last = name.split(".")
        place = source
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise ValueError(f"{name!r} cannot be set: {folder!r} is {place!r:.80}")
        place[last] = parse_yaml(value, f"the value of {name!r}")
    config: Config = validate_schema(source, Config)
    return config


def registered_trainer_adapters() -> list[type[TrainerAdapterConfig]]:
    """Return the configurations of the trainer adapters that are registered by now."""
    return [info.config_type for info in GlobalTypeRegistry.get().get_registered_trainer_adapters()]


def discovered_trainer_adapters() -> list[type[TrainerAdapterConfig]]:
    """Return the configurations of the trainer adapters of all installed plugins, which are imported."""
    discover_and_register_plugins(PluginTypes.CONFIG_OBJECT)
    return registered_trainer_adapters()


def before_components_close(builder: object, finish: Callable[[], Awaitable[None]]) -> None:
    """Have `finish` awaited before the components close that `builder` has built by now, if it is NAT's own.

    NAT closes what was built last first, and so what a middleware wraps before the middleware.
    """
    stack = getattr(builder, "_exit_stack", None)
    if isinstance(stack, AsyncExitStack):
        stack.push_async_callback(finish)


def registering() -> AbstractContextManager[None]:
    """Let NAT rebuild its configuration models once for all registrations in the block, which takes most of their time.

    NAT's plugin loader has paused that already, and a second pause would end the first.
    """
    registry = GlobalTypeRegistry.get()
    active = registry._registration_changed_hooks_active  # noqa: SLF001 - NAT has no public way to ask
    return registry.pause_registration_changed_hooks() if active else nullcontext()


def streams_one_result(call_next: Callable[..., object]) -> bool:
    """Whether what a middleware is to call is a stream that NAT made of a function's only result.

    Workflows that cannot stream are served as such ones under `/generate/full` and `/chat/stream`. NAT does not tell
    them apart but by the name of what it makes; where that is another one, they are streams like any other.
    """
    while inner := (getattr(call_next, "__kwdefaults__", None) or {}).get("_call_next"):
        call_next = inner  # past the middleware between this one and the function
    stream = getattr(getattr(call_next, "__self__", None), "_astream_fn", None)
    return getattr(stream, "__name__", None) == "_stream_from_single_fn"
