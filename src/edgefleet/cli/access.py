"""``edgefleet access``: until when devices may read and write, renewed and revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from edgefleet.cli.options import common, help_without_command, json_option, open_fleet, yes_option
from edgefleet.cli.output import may_go_on, print_json, print_table, when

if TYPE_CHECKING:
    from edgefleet.interfaces.access import AccessTerm


@click.group(invoke_without_command=True)
@common
@click.pass_context
def access(ctx: click.Context) -> None:
    """Show, renew or revoke what devices read and write with.

    Only some providers have such access: where a device's own identity opens its storage, there is
    nothing to renew, and these commands say so. What is given itself is never shown.
    """
    help_without_command(ctx)


@access.command()
@json_option
@common
def show(*, as_json: bool) -> None:
    """Show until when devices have access."""
    with open_fleet() as fleet:
        _print(fleet.access(), as_json=as_json)


@access.command()
@click.option("--group", metavar="GROUP", help="Only of this group; without it of all.")
@click.option(
    "--within",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    help="Renew what ends within so many days; without it, what has passed half of its time.",
)
@json_option
@common
def renew(*, group: str | None, within: float | None, as_json: bool) -> None:
    """Renew access that ends soon.

    The same again changes nothing, so that it can be run as often as you like: from cron, or as a
    function. What it takes grows with the number of groups, not of devices.
    """
    with open_fleet() as fleet:
        ahead = None if within is None else timedelta(days=within)
        _print(fleet.renew_access(group, within=ahead), as_json=as_json)


@access.command()
@click.option(
    "--kind",
    type=click.Choice(["read", "write"]),
    required=True,
    help="read: what groups read models with. write: what each device uploads with.",
)
@yes_option
@json_option
@common
def revoke(*, kind: str, yes: bool, as_json: bool) -> None:
    """End all access of a kind at once, also that of somebody who copied it.

    Devices keep what they have and wait. After `read`, run `edgefleet access renew`; after `write`
    each device is given another one, which takes calls for each of them.
    """
    from edgefleet.interfaces.access import AccessKind

    may_go_on(f"End every device's access to {kind}?", yes=yes)
    with open_fleet() as fleet:
        names = fleet.revoke_access(AccessKind(kind))
    if as_json:
        print_json({"deployers": [*names], "kind": kind, "done": "revoked"})
    else:
        click.echo(f"{', '.join(names)}: {kind} revoked" if names else _NOTHING)


_NOTHING = "nothing to do: no deployer of this profile gives access that ends"


def _print(found: dict[str, tuple[AccessTerm, ...]], *, as_json: bool) -> None:
    rows = [(name, term) for name, terms in found.items() for term in terms]
    if as_json:
        print_json({"access": [{"deployer": name, **term.facts()} for name, term in rows]})
        return
    print_table(
        ("deployer", "group", "kind", "ends", "now"),
        [
            (
                name,
                term.group or "all devices",
                term.kind.value,
                "not given" if term.ends is None else when(term.ends),
                "renewed" if term.renewed else "",
            )
            for name, term in rows
        ],
        empty=_NOTHING if not found else "no group has a pointer yet",
    )
