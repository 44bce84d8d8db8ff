"""How recorded candidates are paired: what a file of rules says, and what the command line changes."""

from dataclasses import dataclass, field
from pathlib import Path

from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.pairing.builder_settings import BuilderSettings
from nat_dpo_pipeline.pairing.dataset_settings import DatasetSettings, SplitSettings
from nat_dpo_pipeline.pairing.yaml_text import read_yaml
from nat_dpo_pipeline.strict import checked

Fields = dict[str, object]
# A configuration of NAT has one of these at its top, and rules have none.
_SECTIONS = {
    *("general", "workflow", "functions", "llms", "eval"),
    *("finetuning", "trajectory_builders", "trainers", "trainer_adapters"),
}


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

    def settings(self) -> tuple[BuilderSettings, SplitSettings, DatasetSettings]:
        """Raises ConfigurationError."""
        return (
            checked(BuilderSettings, self.builder),
            checked(SplitSettings, self.trainer),
            checked(DatasetSettings, self.adapter),
        )


def read_rules(path: Path) -> Rules | None:
    """The rules in a YAML file: fields of `dpo_traj_builder`. None for a configuration of NAT.

    Raises ConfigurationError.
    """
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise ConfigurationError(f"{str(path)!r} must be a mapping: fields of dpo_traj_builder, or a configuration")
    return (
        None if found.keys() & _SECTIONS else Rules({name: value for name, value in found.items() if name != "_type"})
    )


def _set(values: Fields) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}
