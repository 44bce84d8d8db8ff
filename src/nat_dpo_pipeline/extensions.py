"""What other packages add: entry points, each imported when its name is asked for.

[project.entry-points."nat_dpo_pipeline.formats"]
my_format = "my_package.formats:MY_FORMAT"
"""

from enum import StrEnum
from importlib.metadata import entry_points
from typing import TypeVar

from nat_dpo_pipeline.errors import ConfigurationError

_Added = TypeVar("_Added")


class ExtensionGroup(StrEnum):
    """Groups of entry points, and what an entry point of each names."""

    FORMATS = "nat_dpo_pipeline.formats"  # a `dataset.formats.Format`
    SCORERS = "nat_dpo_pipeline.scorers"  # a subclass of `plugin.workflows.scorer_settings.ScorerSettings`


def added_names(group: ExtensionGroup) -> list[str]:
    """Return the names in a group, sorted."""
    return sorted(entry_points(group=group).names)


def added(group: ExtensionGroup, name: str, kind: type[_Added]) -> _Added | None:
    """Return the object, or the class, of this name, which is a `kind`; None where no package adds one.

    Raises ConfigurationError for one that cannot be imported or is something else.
    """
    for found in entry_points(group=group, name=name):
        try:
            value: object = found.load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"{name!r} of the entry points {group} cannot be imported: {error}") from error
        if not isinstance(value, kind):
            raise ConfigurationError(f"{name!r} of the entry points {group} is no {kind.__name__}: {value!r:.80}")
        return value
    return None
