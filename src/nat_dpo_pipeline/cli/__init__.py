"""`nat dpo …`. NAT imports this at every start, so that each command imports its work when it is called."""

import click

from nat_dpo_pipeline.cli.generate import generate_command


@click.group(name="dpo")
def dpo() -> None:
    """Preference data for DPO: generate candidates, look at them, pair them."""


dpo.add_command(generate_command)
