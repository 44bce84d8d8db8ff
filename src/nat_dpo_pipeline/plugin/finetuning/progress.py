"""Lines of progress in the folder of a run, and nowhere else."""

from collections.abc import Mapping
from pathlib import Path

from nat_dpo_pipeline.dataset.files import append_json, check_file_name
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.plugin.nat_api import FinetuneConfig


def append_progress(
    name: str, entry: Mapping[str, object], output_dir: str | None, run_config: FinetuneConfig | None
) -> None:
    """Append one line to the file `name` in `output_dir`, or else in that of the run.

    Raises ConfigurationError where no folder is known, as before `initialize`, and for a name that is no file's in it.
    """
    folder = output_dir or (None if run_config is None else run_config.output_dir)
    if folder is None:
        raise ConfigurationError("progress has no folder yet: call initialize first, or give output_dir")
    append_json(Path(folder) / check_file_name(name), entry)
