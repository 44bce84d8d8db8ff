"""A configuration of NAT as a file of rules."""

from pathlib import Path

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.rules_file import Fields, Rules
from nat_dpo_pipeline.plugin.commands.components import adapter_of, builder_of, trainer_of
from nat_dpo_pipeline.plugin.commands.generation import load_any
from nat_dpo_pipeline.strict import StrictConfig


def rules_in_configuration(path: Path) -> Rules:
    """What its trajectory builder, trainer and adapter say. Raises ConfigurationError."""
    config = load_any(path)
    builder = builder_of(config)
    if builder is None:
        raise ConfigurationError(f"{str(path)!r} has no trajectory builder of this package, or several and none named")
    return Rules(
        _fields(BuilderSettings, builder),
        _fields(SplitSettings, trainer_of(config)),
        _fields(DatasetSettings, adapter_of(config)),
    )


def _fields(settings: type[StrictConfig], config: StrictConfig | None) -> Fields:
    return {} if config is None else config.model_dump(exclude_unset=True, include=set(settings.model_fields))
