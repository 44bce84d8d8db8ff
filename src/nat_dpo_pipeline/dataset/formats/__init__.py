"""Preference rows in the shapes that trainers read."""

from nat_dpo_pipeline.dataset.formats.answers import ANSWERS
from nat_dpo_pipeline.dataset.formats.chats import CHATS, trl_row
from nat_dpo_pipeline.dataset.formats.format import Format
from nat_dpo_pipeline.dataset.formats.rows import DatasetRow, PreferenceRow, SplitName, UnpairedRow, row_of
from nat_dpo_pipeline.dataset.formats.texts import TEXTS
from nat_dpo_pipeline.errors import ConfigurationError

__all__ = [
    "FORMATS",
    "DatasetRow",
    "Format",
    "PreferenceRow",
    "SplitName",
    "UnpairedRow",
    "formats_named",
    "row_of",
    "trl_row",
]

FORMATS: tuple[Format, ...] = (*CHATS, *TEXTS, *ANSWERS)


def formats_named(names: list[str] | tuple[str, ...]) -> list[Format]:
    """The formats of these names, in this order, each once. Raises ConfigurationError."""
    known = {one.name: one for one in FORMATS}
    if unknown := [name for name in names if name not in known]:
        raise ConfigurationError(f"there is no format {unknown[0]!r}; there are {', '.join(known)}")
    if not names:
        raise ConfigurationError(f"name a format at least; there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]
