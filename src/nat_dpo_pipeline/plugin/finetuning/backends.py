"""The training back end that a configuration describes; only that one is imported."""

from collections.abc import Mapping

from nat_dpo_pipeline.plugin.nemo_config import (
    NeMoCustomizerTrainerAdapterConfig,
    SharedNeMoCustomizerTrainerAdapterConfig,
)
from nat_dpo_pipeline.plugin.openai_config import OpenAITrainerAdapterConfig
from nat_dpo_pipeline.plugin.trainer_config import JobAdapterConfig
from nat_dpo_pipeline.plugin.trl_config import TrlTrainerAdapterConfig
from nat_dpo_pipeline.strict import type_name
from nat_dpo_pipeline.trainers.backend import Backend

#: The adapters whose jobs outlive the process that submitted them, by their `_type`.
JOB_ADAPTERS: Mapping[str, type[JobAdapterConfig]] = {
    type_name(config): config
    for config in (
        TrlTrainerAdapterConfig,
        OpenAITrainerAdapterConfig,
        NeMoCustomizerTrainerAdapterConfig,
        SharedNeMoCustomizerTrainerAdapterConfig,
    )
}


def backend_of(config: JobAdapterConfig) -> Backend:
    """Raises ConfigurationError for settings that the back end refuses, TypeError for a configuration of another."""
    match config:
        case TrlTrainerAdapterConfig():
            from nat_dpo_pipeline.trainers.trl.local import TrlBackend

            return TrlBackend(config.settings())
        case OpenAITrainerAdapterConfig():
            from nat_dpo_pipeline.trainers.openai.dpo import OpenAIBackend

            return OpenAIBackend(config.settings())
        case NeMoCustomizerTrainerAdapterConfig():
            from nat_dpo_pipeline.trainers.nemo.customizer import NemoCustomizerBackend

            return NemoCustomizerBackend(config.settings())
    raise TypeError(f"there is no back end for {type(config).__name__}")
