"""A submitted job on record, so that another process can ask for it and go on waiting."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from nat_dpo_pipeline.dataset.files import write_json
from nat_dpo_pipeline.errors import ConfigurationError, InputError
from nat_dpo_pipeline.json_text import parse_json
from nat_dpo_pipeline.plugin.finetuning_config import JobAdapterConfig
from nat_dpo_pipeline.plugin.nat_api import TrainingJobRef, discovered_trainer_adapters, registered_trainer_adapters
from nat_dpo_pipeline.redacted import redacted
from nat_dpo_pipeline.strict import in_words, type_name

JOB_FILE = "training_job.json"

# NAT's own fields of every adapter; the second is set by the trainer when it starts.
_NOT_SETTINGS = ("type", "reward")


@dataclass(frozen=True, slots=True)
class SavedJob:
    """A job and the settings of its adapter without those that are secret, whose names are in `left_out`."""

    ref: TrainingJobRef
    adapter: str
    settings: Mapping[str, object]
    left_out: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, ref: TrainingJobRef, config: JobAdapterConfig) -> "SavedJob":
        shown = redacted(config)
        found = shown if isinstance(shown, Mapping) else {}
        settings = {name: value for name, value in found.items() if name not in _NOT_SETTINGS and value is not None}
        hidden = tuple(name for name, value in settings.items() if _hides_something(value))
        kept = {name: value for name, value in settings.items() if name not in hidden}
        return cls(ref, type_name(type(config)), kept, hidden)

    def config(self) -> JobAdapterConfig:
        """The adapter's configuration; what was left out is as the environment has it.

        Raises ConfigurationError when it cannot be made without what was left out.
        """
        adapters = _job_adapters(self.adapter)
        if self.adapter not in adapters:
            raise ConfigurationError(f"trainer adapter {self.adapter!r} is none of {', '.join(adapters)}")
        try:
            return adapters[self.adapter].model_validate(self.settings)
        except ValidationError as error:
            missing = f" ({', '.join(self.left_out)} is not on record: give --config_file)" if self.left_out else ""
            raise ConfigurationError(f"the settings on record do not hold{missing}: {in_words(error)}") from error

    def write(self, folder: Path) -> None:
        """Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        values = {
            "job": self.ref.model_dump(mode="json"),
            "trainer_adapter": self.adapter,
            "settings": self.settings,
            "left_out": self.left_out,
        }
        write_json(folder / JOB_FILE, values)


def read_saved_job(folder: Path) -> SavedJob:
    """The job that was submitted last from a run with this output folder. Raises InputError."""
    path = folder / JOB_FILE
    try:
        found = parse_json(path.read_bytes())
        ref = TrainingJobRef.model_validate(found["job"])
        return SavedJob(ref, str(found["trainer_adapter"]), dict(found["settings"]), tuple(found["left_out"]))
    except FileNotFoundError as error:
        raise InputError(
            f"{str(folder)!r} has no {JOB_FILE}: give the finetuning.output_dir of a run that submitted a job"
        ) from error
    except (OSError, InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(path)!r} does not describe a training job: {error}") from error


def _job_adapters(wanted: str) -> dict[str, type[JobAdapterConfig]]:
    """Return the adapters whose jobs outlive the process that submitted them, by their `_type`.

    Those of other packages are looked for where `wanted` is none of ours, as that imports all plugins of NAT.
    """
    from nat_dpo_pipeline.plugin import register  # noqa: F401 - registers ours

    for configs in (registered_trainer_adapters, discovered_trainer_adapters):
        found = {type_name(config): config for config in configs() if issubclass(config, JobAdapterConfig)}
        if wanted in found:
            break
    return found


def _hides_something(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_hides_something, value.values()))
    if isinstance(value, list):
        return any(map(_hides_something, value))
    return isinstance(value, str) and "***" in value
