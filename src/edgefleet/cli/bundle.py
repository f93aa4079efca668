"""``edgefleet bundle``: what travels by a stick."""

from __future__ import annotations

import click

from edgefleet.cli.options import common, help_without_command, json_option, open_fleet
from edgefleet.cli.output import print_json, print_table


@click.group(invoke_without_command=True)
@common
@click.pass_context
def bundle(ctx: click.Context) -> None:
    """Carry releases to devices by a stick, and back what they recorded."""
    help_without_command(ctx)


@bundle.command()
@click.option("--group", metavar="GROUP", required=True, help="GROUP or DEPLOYER/GROUP.")
@click.option("--to", "to", metavar="DIR", required=True, help="Where the stick is mounted.")
@click.option(
    "--target",
    "targets",
    metavar="NAME",
    multiple=True,
    help="Leave out variants for other hardware targets; may be repeated.",
)
@json_option
@common
def export(*, group: str, to: str, targets: tuple[str, ...], as_json: bool) -> None:
    """Put a group's release on a stick.

    Its devices take it with: edgefleet-runtime … --channel pull -o media=DIR. Repeat the command
    after it was interrupted: it goes on from there, and until it has ended the stick holds what it
    held before.
    """
    with open_fleet() as fleet:
        done = fleet.export_group(group, to, targets=targets)
    if as_json:
        print_json(done.facts())
    else:
        click.echo(
            f"{to}: release of {done.group}, pointer {done.pair[0]}/{done.pair[1]}, {done.blobs} "
            f"blobs of {done.size} bytes; {done.copied} copied, {done.removed} older ones removed"
        )


@bundle.command("import")
@click.option("--from", "source", metavar="DIR", required=True, help="Where the stick is mounted.")
@json_option
@common
def import_(*, source: str, as_json: bool) -> None:
    """Take what devices wrote on a stick: reports, alarms, segments, samples.

    What was taken goes from the stick. What no device of the fleet signed is put below refused/ on
    it, and told; the command fails then, with the rest taken.
    """
    from edgefleet.errors import IntegrityError

    with open_fleet() as fleet:
        taken = fleet.take_receipts(source)
    if as_json:
        print_json(taken.facts())
    else:
        click.echo(
            f"{source}: of {len(taken.devices)} devices {taken.reports} reports, {taken.events} "
            f"events, {taken.files} files; {taken.unfinished} unfinished"
        )
        if taken.refused:
            print_table(("Refused", "Why"), sorted(taken.refused.items()))
    if taken.refused:
        rest = "the rest was taken" if taken.devices else "nothing was taken"
        raise IntegrityError(
            f"{len(taken.refused)} of what the stick held was refused; {rest}",
            cure=f"look at it below edgefleet/refused of {source}",
        )
