"""``edgefleet group``: what is done to a group as such."""

from __future__ import annotations

import click

from edgefleet.cli.options import common, help_without_command, json_option, open_fleet, yes_option
from edgefleet.cli.output import may_go_on, print_json


@click.group(invoke_without_command=True)
@common
@click.pass_context
def group(ctx: click.Context) -> None:
    """Remove a group that has no devices."""
    help_without_command(ctx)


@group.command()
@click.argument("name", metavar="GROUP")
@yes_option
@json_option
@common
def remove(*, name: str, yes: bool, as_json: bool) -> None:
    """Take a group that has no devices out of the fleet, with its history.

    GROUP or DEPLOYER/GROUP. One made later by that name begins anew.
    """
    with open_fleet() as fleet:
        may_go_on(f"Remove the group {name} and its history?", yes=yes)
        fleet.remove_group(name)
    if as_json:
        print_json({"removed": name})
    else:
        click.echo(f"{name} is removed")
