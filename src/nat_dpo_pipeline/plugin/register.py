"""The entry point: every component, registered. Implementations are imported when a component is built."""

from collections.abc import AsyncIterator
from importlib.util import find_spec

from nat.plugin_api import (
    Builder,
    FunctionInfo,
    FunctionMiddleware,
    LLMProviderInfo,
    register_eval_callback,
    register_function,
    register_llm_provider,
    register_middleware,
    register_telemetry_exporter,
)

from nat_dpo_pipeline.plugin.exporter_config import CandidateExporterConfig
from nat_dpo_pipeline.plugin.finetuning_config import (
    DatasetTrainerAdapterConfig,
    DPOTrainerConfig,
    DPOTrajectoryBuilderConfig,
    JobAdapterConfig,
    NeMoCustomizerTrainerAdapterConfig,
    NeMoCustomizerTrainerConfig,
    OpenAITrainerAdapterConfig,
    SharedDPOTrajectoryBuilderConfig,
    SharedNeMoCustomizerTrainerAdapterConfig,
    SharedNeMoCustomizerTrainerConfig,
    TrlTrainerAdapterConfig,
)
from nat_dpo_pipeline.plugin.middleware_config import BestOfNConfig
from nat_dpo_pipeline.plugin.nat_api import (
    BaseExporter,
    Trainer,
    TrainerAdapter,
    TrajectoryBuilder,
    register_trainer,
    register_trainer_adapter,
    register_trajectory_builder,
    registering,
)
from nat_dpo_pipeline.plugin.workflow_config import DemoModelConfig, PreferenceDataConfig, ScoredCandidatesConfig


async def preference_data(config: PreferenceDataConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    from nat_dpo_pipeline.plugin.workflows.workflow import preference_data_workflow

    async with preference_data_workflow(config, builder) as workflow:

        async def run(text: str) -> str:
            return await workflow(text)

        yield FunctionInfo.from_fn(run, description=PreferenceDataConfig.__doc__)


async def scored_candidates(config: ScoredCandidatesConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    from nat_dpo_pipeline.plugin.workflows.workflow import emit_row

    async def run(row: str) -> str:
        return await emit_row(row, config)

    yield FunctionInfo.from_fn(run, description=ScoredCandidatesConfig.__doc__)


async def dpo_demo(config: DemoModelConfig, builder: Builder) -> AsyncIterator[LLMProviderInfo]:
    yield LLMProviderInfo(config=config, description=DemoModelConfig.__doc__ or "")


async def best_of_n(config: BestOfNConfig, builder: Builder) -> AsyncIterator[FunctionMiddleware]:
    from nat_dpo_pipeline.plugin.middleware.best_of_n import best_of_n_middleware

    async with best_of_n_middleware(config, builder) as middleware:
        yield middleware


async def dpo_candidates(config: CandidateExporterConfig, builder: Builder) -> AsyncIterator[BaseExporter]:
    from nat_dpo_pipeline.plugin.telemetry.exporter import CandidateExporter

    exporter = CandidateExporter(config)
    exporter.log.check()
    try:
        yield exporter
    finally:
        exporter.log.close()


def evaluation_items(config: CandidateExporterConfig) -> object:
    from nat_dpo_pipeline.plugin.telemetry.evaluation_items import EvaluationItems

    return EvaluationItems()


async def dpo_traj_builder(config: DPOTrajectoryBuilderConfig, builder: Builder) -> AsyncIterator[TrajectoryBuilder]:
    from nat_dpo_pipeline.plugin.finetuning.trajectory_builder import DPOTrajectoryBuilder

    yield DPOTrajectoryBuilder(config)


async def dpo_trainer(config: DPOTrainerConfig, builder: Builder) -> AsyncIterator[Trainer]:
    from nat_dpo_pipeline.plugin.finetuning.trainer import DPOTrainer

    yield DPOTrainer(config)


async def dataset_trainer_adapter(
    config: DatasetTrainerAdapterConfig, builder: Builder
) -> AsyncIterator[TrainerAdapter]:
    from nat_dpo_pipeline.plugin.finetuning.dataset_adapter import DatasetTrainerAdapter

    yield DatasetTrainerAdapter(config)


async def job_trainer_adapter(config: JobAdapterConfig, builder: Builder) -> AsyncIterator[TrainerAdapter]:
    from nat_dpo_pipeline.plugin.finetuning.job_adapter import BackendTrainerAdapter

    yield BackendTrainerAdapter(config, config.backend())


def register_backend(config: type[JobAdapterConfig]) -> None:
    """Have NAT build the trainer adapter of a training back end, which `config.backend()` gives."""
    register_trainer_adapter(config_type=config)(job_trainer_adapter)


with registering():
    register_function(config_type=PreferenceDataConfig)(preference_data)
    register_function(config_type=ScoredCandidatesConfig)(scored_candidates)
    register_llm_provider(config_type=DemoModelConfig)(dpo_demo)
    register_middleware(config_type=BestOfNConfig)(best_of_n)
    register_telemetry_exporter(config_type=CandidateExporterConfig)(dpo_candidates)
    register_eval_callback(config_type=CandidateExporterConfig)(evaluation_items)
    register_trajectory_builder(config_type=DPOTrajectoryBuilderConfig)(dpo_traj_builder)
    register_trainer(config_type=DPOTrainerConfig)(dpo_trainer)
    register_trainer_adapter(config_type=DatasetTrainerAdapterConfig)(dataset_trainer_adapter)
    register_backend(OpenAITrainerAdapterConfig)
    register_trainer(config_type=NeMoCustomizerTrainerConfig)(dpo_trainer)
    register_backend(NeMoCustomizerTrainerAdapterConfig)
    register_backend(TrlTrainerAdapterConfig)
    # Two packages that register one name make it unusable for both: where NVIDIA's own is installed, it keeps its name.
    if find_spec("nat.plugins.customizer") is None:
        register_trajectory_builder(config_type=SharedDPOTrajectoryBuilderConfig)(dpo_traj_builder)
        register_trainer(config_type=SharedNeMoCustomizerTrainerConfig)(dpo_trainer)
        register_backend(SharedNeMoCustomizerTrainerAdapterConfig)
