"""Which components of a configuration pair, split and write."""

from nat_dpo_pipeline.plugin.finetuning_config import (
    DatasetTrainerAdapterConfig,
    DPOTrainerConfig,
    DPOTrajectoryBuilderConfig,
)
from nat_dpo_pipeline.plugin.nat_api import Config


def builder_of(config: Config) -> DPOTrajectoryBuilderConfig | None:
    """The trajectory builder that fine-tuning names, or the only one there is, if it is one of ours."""
    builders = config.trajectory_builders
    name = config.finetuning.trajectory_builder
    chosen = builders.get(name) if name else next(iter(builders.values())) if len(builders) == 1 else None
    return chosen if isinstance(chosen, DPOTrajectoryBuilderConfig) else None


def trainer_of(config: Config) -> DPOTrainerConfig:
    """The trainer that fine-tuning names, or else one with the defaults: it says how to draw and split."""
    trainer = config.trainers.get(config.finetuning.trainer or "")
    return trainer if isinstance(trainer, DPOTrainerConfig) else DPOTrainerConfig()


def adapter_of(config: Config) -> DatasetTrainerAdapterConfig | None:
    """The trainer adapter that fine-tuning names, or the only one there is, if it is one that writes datasets."""
    adapters = config.trainer_adapters
    name = config.finetuning.trainer_adapter
    chosen = adapters.get(name) if name else next(iter(adapters.values())) if len(adapters) == 1 else None
    return chosen if isinstance(chosen, DatasetTrainerAdapterConfig) else None
