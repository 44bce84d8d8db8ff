"""The configuration of a run as it may be written down: without keys and secrets."""

import re
from collections.abc import Mapping

from pydantic import BaseModel, SecretStr

from nat_dpo_pipeline.plugin.nat_api import Config, FinetuneConfig

# What says how a model answers. Everything else of an llm entry may be a credential.
_MODEL_FIELDS = ("type", "model_name", "temperature", "top_p", "max_tokens", "seed")
_SECRET_NAME = re.compile(
    r"(api|access|private|secret)[_-]?keys?$|secret|password|passphrase|passwd|credential|authorization|bearer|cookie"
    r"|connection[_-]string|(^|[_-])auth([_-]|$)|(^|[_-]|[a-z])tokens?$|headers?$",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")


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


def redacted(value: object) -> object:
    """`value` as JSON values, with the values of secrets and of keys named like secrets replaced by "***"."""
    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return redacted({**fields, **(value.model_extra or {})})
    if isinstance(value, Mapping):
        return {str(name): "***" if _is_secret(str(name), item) else redacted(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(item) for item in value]
    return value if isinstance(value, bool | int | float) or value is None else _CREDENTIALS.sub("***@", str(value))


def _is_secret(name: str, value: object) -> bool:
    # A number under such a name is a setting (max_tokens), not a secret.
    return isinstance(value, str | Mapping | list) and _SECRET_NAME.search(name) is not None
