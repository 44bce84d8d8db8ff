"""`nat dpo …`, and `nat-dpo …` where NAT is not installed.

NAT imports this module at every start: the module of a command is imported when that command is called.
"""

from importlib import import_module

import click

from nat_dpo_pipeline.cli.terminal import errors_in_one_line

_SUMMARIES = {
    "export": "Pair a finished run again, in other formats.",
    "generate": "Generate and score responses.",
    "inspect": "Find the problems of a dataset before training.",
    "pairs": "Pair recorded candidates.",
    "report": "Make a page of a finished run.",
    "resume": "Continue a training job.",
    "status": "Show where a training job stands.",
}


class _Commands(click.Group):
    """Commands named by `_SUMMARIES`; each is `NAME_command` of the module NAME in this package."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click prescribes it
        if cmd_name not in self.commands:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> object:
        with errors_in_one_line():
            return super().invoke(ctx)


@click.group(name="dpo", cls=_Commands, commands={name: click.Command(name) for name in _SUMMARIES})
@click.version_option(package_name="nat-dpo-pipeline", message="%(package)s %(version)s")
def dpo() -> None:
    """Preference data for DPO: generate candidates, look at them, pair them, and follow the training on the pairs."""
