"""Preference rows in the shapes that trainers read."""

from nat_dpo_pipeline.dataset.formats.answers import ANSWERS
from nat_dpo_pipeline.dataset.formats.chats import CHATS, trl_row
from nat_dpo_pipeline.dataset.formats.format import Format
from nat_dpo_pipeline.dataset.formats.rows import DatasetRow, PreferenceRow, SplitName, UnpairedRow, row_of
from nat_dpo_pipeline.dataset.formats.texts import TEXTS
from nat_dpo_pipeline.errors import ConfigurationError
from nat_dpo_pipeline.extensions import ExtensionGroup, added, added_names

__all__ = [
    "FORMATS",
    "DatasetRow",
    "Format",
    "PreferenceRow",
    "SplitName",
    "UnpairedRow",
    "format_names",
    "formats_named",
    "row_of",
    "trl_row",
]

FORMATS: tuple[Format, ...] = (*CHATS, *TEXTS, *ANSWERS)


_OWN = {one.name: one for one in FORMATS}


def format_names() -> list[str]:
    """Return the names of all formats, also of those that other packages add."""
    return [*_OWN, *added_names(ExtensionGroup.FORMATS)]


def formats_named(names: list[str] | tuple[str, ...]) -> list[Format]:
    """Return the formats of these names, in this order, each once. Raises ConfigurationError."""
    if not names:
        raise ConfigurationError(f"name a format at least; there are {', '.join(format_names())}")
    return [_named(name) for name in dict.fromkeys(names)]


def _named(name: str) -> Format:
    found = _OWN.get(name) or added(ExtensionGroup.FORMATS, name, Format)
    if found is None:
        raise ConfigurationError(f"there is no format {name!r}; there are {', '.join(format_names())}")
    if found.name != name:
        raise ConfigurationError(f"the format of the entry point {name!r} must have that name, not {found.name!r}")
    return found
