"""The one door for the NAT names that its stable plugin API leaves out."""

from contextlib import AbstractContextManager, nullcontext

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
    TTCEventData,
)
from nat.finetuning.interfaces import Trainer, TrainerAdapter, TrajectoryBuilder

__all__ = [
    "Config",
    "DPOItem",
    "EvalInput",
    "EvalInputItem",
    "EvaluationRunConfig",
    "EvaluationRunOutput",
    "FinetuneConfig",
    "IntermediateStep",
    "IntermediateStepPayload",
    "IntermediateStepType",
    "OpenAIMessage",
    "StreamEventData",
    "TTCEventData",
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
    "register_trainer",
    "register_trainer_adapter",
    "register_trajectory_builder",
    "registering",
]


def registering() -> AbstractContextManager[None]:
    """Let NAT rebuild its configuration models once for all registrations in the block, which takes most of their time.

    NAT's plugin loader has paused that already, and a second pause would end the first.
    """
    registry = GlobalTypeRegistry.get()
    active = registry._registration_changed_hooks_active  # noqa: SLF001 - NAT has no public way to ask
    return registry.pause_registration_changed_hooks() if active else nullcontext()
