"""Which components of a configuration pair, split and write."""

from collections.abc import Mapping
from typing import TypeVar

from nat_dpo_pipeline.plugin.finetuning_config import (
    DatasetTrainerAdapterConfig,
    DPOTrainerConfig,
    DPOTrajectoryBuilderConfig,
)
from nat_dpo_pipeline.plugin.nat_api import Config

T = TypeVar("T")


def builder_of(config: Config) -> DPOTrajectoryBuilderConfig | None:
    """Return the trajectory builder that fine-tuning names, or the only one, if it is one of this package."""
    return _chosen(config.trajectory_builders, config.finetuning.trajectory_builder, DPOTrajectoryBuilderConfig)


def trainer_of(config: Config) -> DPOTrainerConfig:
    """Return the trainer that fine-tuning names, or the only one, which says how to draw and split; else defaults."""
    return _chosen(config.trainers, config.finetuning.trainer, DPOTrainerConfig) or DPOTrainerConfig()


def adapter_of(config: Config) -> DatasetTrainerAdapterConfig | None:
    """Return the trainer adapter that fine-tuning names, or the only one, if it is one that writes datasets."""
    return _chosen(config.trainer_adapters, config.finetuning.trainer_adapter, DatasetTrainerAdapterConfig)


def _chosen(components: Mapping[str, object], name: str | None, kind: type[T]) -> T | None:
    chosen = components.get(name) if name else next(iter(components.values())) if len(components) == 1 else None
    return chosen if isinstance(chosen, kind) else None
