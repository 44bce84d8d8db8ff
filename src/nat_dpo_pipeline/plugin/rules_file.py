"""How recorded candidates are paired: what a file of rules says, and what the command line changes."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.plugin.builder_config import DPOTrajectoryBuilderConfig
from nat_dpo_pipeline.plugin.generation import load_any
from nat_dpo_pipeline.plugin.nat_api import Config
from nat_dpo_pipeline.plugin.pairing import adapter_of, builder_of, trainer_of
from nat_dpo_pipeline.plugin.strict import StrictConfig
from nat_dpo_pipeline.plugin.trainer_config import DatasetTrainerAdapterConfig, DPOTrainerConfig

Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class Rules:
    """What was set of trajectory builder, trainer and adapter."""

    builder: Fields = field(default_factory=dict)
    trainer: Fields = field(default_factory=dict)
    adapter: Fields = field(default_factory=dict)

    def changed(self, builder: Fields, trainer: Fields, adapter: Fields) -> "Rules":
        """With these values in the place of what was set; None changes nothing."""
        before = self.builder
        if builder.get("strategy") is not None:
            # What the strategy replaces would contradict it.
            before = {name: value for name, value in before.items() if name != "exhaustive_pairs"}
        return Rules(before | _set(builder), self.trainer | _set(trainer), self.adapter | _set(adapter))

    def configs(self) -> tuple[DPOTrajectoryBuilderConfig, DPOTrainerConfig, DatasetTrainerAdapterConfig]:
        """Raises ValidationError, which says what is wrong in words."""
        return (
            DPOTrajectoryBuilderConfig.model_validate(self.builder),
            DPOTrainerConfig.model_validate(self.trainer),
            DatasetTrainerAdapterConfig.model_validate(self.adapter),
        )


def read_rules(path: Path) -> Rules:
    """The rules in a YAML file: fields of `dpo_traj_builder`, or a whole configuration that has one.

    Raises ConfigurationError.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{str(path)!r} must be a mapping: fields of dpo_traj_builder, or a configuration")
    if found.keys() & Config.model_fields.keys():
        return _of_configuration(path)
    return Rules({name: value for name, value in found.items() if name != "_type"})


def _of_configuration(path: Path) -> Rules:
    config = load_any(path)
    builder = builder_of(config)
    if builder is None:
        raise ConfigurationError(f"{str(path)!r} has no trajectory builder of this package, or several and none named")
    return Rules(_fields(builder), _fields(trainer_of(config)), _fields(adapter_of(config)))


def _fields(config: StrictConfig | None) -> Fields:
    return {} if config is None else config.model_dump(exclude_unset=True, exclude={"type"})


def _set(values: Fields) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
