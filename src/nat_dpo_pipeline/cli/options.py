"""The options that several commands share."""

from collections.abc import Callable
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., object])


def card_options(command: _Command) -> _Command:
    """Add the options of the dataset: render, license_name, title and languages, None or empty where not given."""
    for option in (
        click.option("--render", help="A model whose chat template makes the texts of trl_standard and oumi."),
        click.option("--language", "languages", multiple=True, help="For the dataset card: ISO 639; can be repeated."),
        click.option("--title", help="For the dataset card.  [default: Preference pairs]"),
        click.option("--license", "license_name", help="For the dataset card: of the hub's list.  [default: unknown]"),
    ):
        command = option(command)
    return command
