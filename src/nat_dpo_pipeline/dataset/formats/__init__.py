"""Preference rows in the shapes that trainers read."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from nat_dpo_pipeline.dataset.formats.answers import ANSWERS
from nat_dpo_pipeline.dataset.formats.chats import CHATS, trl_row
from nat_dpo_pipeline.dataset.formats.format import Format, each_pair
from nat_dpo_pipeline.dataset.formats.rows import DatasetRow, PreferenceRow, SplitName, UnpairedRow, row_of
from nat_dpo_pipeline.dataset.formats.texts import TEXTS, rendered_row
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
    "rendered_names",
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


#: Formats of a prompt and two answers as text, which can be those that a chat template makes.
RENDERABLE = ("trl_standard", "oumi")


def rendered_names(names: Sequence[str], template: str | None) -> tuple[str, ...]:
    """Return names of formats, of which those of texts are made by a chat template. Raises ConfigurationError."""
    if template is None:
        return tuple(names)
    if not set(names) & set(RENDERABLE):
        raise ConfigurationError(
            f"render makes texts: name one of the formats {', '.join(RENDERABLE)}, not only {', '.join(names)}"
        )
    return tuple(f"{name}{_BY}{template}" if name in RENDERABLE else name for name in names)


# Between the name of a format and the model whose chat template makes its texts.
_BY = "@"


def _named(name: str) -> Format:
    name, _, template = name.partition(_BY)
    if template:
        if name not in RENDERABLE:
            raise ConfigurationError(f"{name!r} is no format of texts; there are {', '.join(RENDERABLE)}")
        rows = each_pair(partial(rendered_row, template))
        return replace(_OWN[name], rows=rows, takes_calls=True, template=template)
    found = _OWN.get(name) or added(ExtensionGroup.FORMATS, name, Format)
    if found is None:
        raise ConfigurationError(f"there is no format {name!r}; there are {', '.join(format_names())}")
    if found.name != name:
        raise ConfigurationError(f"the format of the entry point {name!r} must have that name, not {found.name!r}")
    return found
