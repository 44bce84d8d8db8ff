"""`nat dpo …`, and `nat-dpo …` for where NAT is not.

NAT imports this at every start, so that each command imports its work when it is called.
"""

import click

from nat_dpo_pipeline.cli.export import export_command
from nat_dpo_pipeline.cli.generate import generate_command
from nat_dpo_pipeline.cli.inspect import inspect_command
from nat_dpo_pipeline.cli.pairs import pairs_command
from nat_dpo_pipeline.cli.report import report_command
from nat_dpo_pipeline.cli.resume import resume_command
from nat_dpo_pipeline.cli.saying import errors_in_one_line
from nat_dpo_pipeline.cli.status import status_command


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            with errors_in_one_line():
                return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "nat":
                raise
            raise click.ClickException("this command needs the NeMo Agent Toolkit: pip install nvidia-nat") from error


@click.group(name="dpo", cls=_Commands)
def dpo() -> None:
    """Preference data for DPO: generate candidates, look at them, pair them; look after what trains on them."""


dpo.add_command(generate_command)
dpo.add_command(report_command)
dpo.add_command(pairs_command)
dpo.add_command(export_command)
dpo.add_command(inspect_command)
dpo.add_command(status_command)
dpo.add_command(resume_command)
