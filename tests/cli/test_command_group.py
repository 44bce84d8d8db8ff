"""The group of commands: its help, its version, and the spellings that all commands share."""

from importlib.metadata import version

import click
from click.testing import CliRunner

from nat_dpo_pipeline.cli import dpo


def _commands() -> dict[str, click.Command]:
    context = click.Context(dpo)
    found = {name: dpo.get_command(context, name) for name in dpo.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def test_the_version_is_that_of_the_package() -> None:
    done = CliRunner().invoke(dpo, ["--version"])
    assert (done.exit_code, done.output) == (0, f"nat-dpo-pipeline {version('nat-dpo-pipeline')}\n")


def test_the_help_names_every_command_with_an_uncut_summary() -> None:
    shown = CliRunner().invoke(dpo, ["--help"]).output
    commands = shown.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands] == list(_commands())
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    assert "Did you mean 'pairs'?" in CliRunner().invoke(dpo, ["pars"]).output


def test_o_is_the_output_of_every_command_that_has_one() -> None:
    short = {
        name: option.opts
        for name, command in _commands().items()
        for option in command.params
        if "-o" in option.opts or "--output" in option.opts
    }
    assert short == {name: ["-o", "--output"] for name in ("export", "generate", "pairs", "report")}
