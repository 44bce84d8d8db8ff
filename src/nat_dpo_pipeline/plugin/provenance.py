"""The configuration of a run as it may be written down: without keys and secrets."""

from pydantic import BaseModel

from nat_dpo_pipeline.plugin.nat_api import Config, FinetuneConfig
from nat_dpo_pipeline.redacted import redacted

# What says how a model answers. Everything else of an llm entry may be a credential.
_MODEL_FIELDS = ("type", "model_name", "temperature", "top_p", "max_tokens", "seed")


def configuration_of(run_config: FinetuneConfig, adapter_config: BaseModel) -> dict[str, object]:
    """Workflow, models, trajectory builder, trainer and adapter of a run as JSON values."""
    parts: dict[str, object] = {"trainer_adapter": redacted(adapter_config)}
    config = run_config.run_configuration.config_file if run_config.run_configuration else None
    if isinstance(config, Config):
        parts |= workflow_configuration(config)
        parts["trajectory_builder"] = redacted(config.trajectory_builders.get(run_config.trajectory_builder or ""))
        parts["trainer"] = redacted(config.trainers.get(run_config.trainer or ""))
    return parts


def workflow_configuration(config: Config) -> dict[str, object]:
    """Workflow and models of a run as JSON values."""
    return {
        "workflow": redacted(config.workflow),
        "llms": {str(name): _model_facts(llm) for name, llm in config.llms.items()},
    }


def _model_facts(llm: BaseModel) -> dict[str, object]:
    return {name: getattr(llm, name) for name in _MODEL_FIELDS if getattr(llm, name, None) is not None}
