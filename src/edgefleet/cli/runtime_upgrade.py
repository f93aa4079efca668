"""``edgefleet runtime upgrade`` and ``status``: which runtime a group's devices are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.options import common, json_option, open_fleet
from edgefleet.cli.output import print_json, print_table

if TYPE_CHECKING:
    from edgefleet.interfaces.upgrading import UpgradeStatus


@click.command()
@click.argument("archives", metavar="[ARCHIVE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--group", metavar="GROUP", required=True, help="GROUP or DEPLOYER/GROUP.")
@click.option(
    "--version",
    metavar="VERSION",
    help="In place of archives: one that was ordered for some group before.",
)
@click.option(
    "--permille",
    metavar="N",
    type=click.IntRange(0, 1000),
    default=1000,
    show_default=True,
    help="How many of a thousand devices take it; the same are in every larger cohort.",
)
@json_option
@common
def upgrade(
    *, archives: tuple[Path, ...], group: str, version: str | None, permille: int, as_json: bool
) -> None:
    """Order another runtime for a group's devices.

    ARCHIVE is what `edgefleet runtime build` made, one a platform, all of one version. Without any,
    the cohort of what was ordered changes. A device whose new runtime doesn't come up goes back to
    its old one by itself, and says why.
    """
    if archives and version is not None:
        raise click.UsageError("archives say which version they are: give one of them")
    with open_fleet() as fleet:
        wanted = (archives or None) if version is None else version
        _show(fleet.runtime.upgrade(group, wanted, permille=permille), as_json=as_json)


@click.command()
@click.argument("group")
@json_option
@common
def status(*, group: str, as_json: bool) -> None:
    """Show which runtime was ordered for a group, and what each device is."""
    with open_fleet() as fleet:
        _show(fleet.runtime.status(group), as_json=as_json)


def _show(found: UpgradeStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(found.facts())
        return
    if found.offer is None:
        click.echo(f"{found.group}: no runtime was ordered")
    else:
        click.echo(
            f"{found.group}: {found.offer.runtime} for {found.offer.permille} of a thousand devices"
        )
    rows = [
        (name, version or "unknown", found.reverted.get(name, ""))
        for name, version in sorted(found.devices.items())
    ]
    print_table(("Device", "Runtime", "Went back because"), rows)
