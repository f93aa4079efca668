"""``edgefleet devices`` and ``device …``: what is in the fleet, and what comes and goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgefleet.cli.options import (
    common,
    help_without_command,
    json_option,
    label_option,
    open_fleet,
    yes_option,
)
from edgefleet.cli.output import may_go_on, print_json, print_table, say, when
from edgefleet.cli.signals import stay

if TYPE_CHECKING:
    from edgefleet.interfaces.values import DeviceInfo


@click.group(invoke_without_command=True)
@click.option("--group", metavar="G", help="Only devices of this group.")
@label_option("Only devices with this label; any number of times.")
@json_option
@common
@click.pass_context
def devices(
    ctx: click.Context, *, group: str | None, labels: tuple[tuple[str, str], ...], as_json: bool
) -> None:
    """List devices, or run the local ones."""
    if ctx.invoked_subcommand is not None:
        return
    with open_fleet() as fleet:
        found = list(fleet.devices(group, labels=dict(labels)))
    if as_json:
        print_json({"devices": [device.facts() for device in found]})
        return
    print_table(
        ("device", "group", "target", "reachable", "last seen (UTC)", "running"),
        [_row(device) for device in found],
        empty="no devices; enrol one with: edgefleet device enroll NAME --group GROUP",
    )


def _row(device: DeviceInfo) -> tuple[str, ...]:
    from edgefleet.protocol.target import TARGET_LABEL

    report = device.report
    labels = {**(report.labels if report else {}), **device.labels}
    running = [] if report is None else [m for m in report.models if m.state == "active"]
    return (
        device.name,
        device.group,
        labels.get(TARGET_LABEL, "-"),
        {True: "yes", False: "no", None: "?"}[device.connected],
        when(device.last_seen),
        ", ".join(f"{m.name}:{m.version} ({m.variant})" for m in running) or "-",
    )


@devices.command()
@common
def up() -> None:
    """Keep the local devices running until Ctrl-C.

    For providers whose devices are processes of this machine: they live as long as somebody runs
    them. Elsewhere devices run by themselves.
    """
    from edgefleet.capabilities import require
    from edgefleet.interfaces.abilities import CanRunDevices

    with open_fleet() as fleet:
        found = [d for d in fleet.deployers.values() if isinstance(d, CanRunDevices)]
        for deployer in found or fleet.deployers.values():
            require(deployer, CanRunDevices).run_devices()
        count = sum(1 for _ in fleet.devices())
        say(f"running {count} device{'' if count == 1 else 's'}; Ctrl-C stops them")
        stay()


@click.group(invoke_without_command=True)
@common
@click.pass_context
def device(ctx: click.Context) -> None:
    """Enrol or retire a device, read its log."""
    help_without_command(ctx)


@device.command()
@click.argument("name")
@click.option("--group", metavar="G", required=True, help="Its group; made if there is none yet.")
@label_option("Such as target=raspberry-pi-5; any number of times.")
@json_option
@common
def enroll(*, name: str, group: str, labels: tuple[tuple[str, str], ...], as_json: bool) -> None:
    """Add a device to a group.

    Where the provider can do that from here. The same again changes nothing.
    """
    with open_fleet() as fleet:
        found = fleet.enroll(name, group=group, labels=dict(labels))
    if as_json:
        print_json(found.facts())
    else:
        click.echo(f"{found.name} is in group {found.group}")


@device.command()
@click.argument("name")
@yes_option
@json_option
@common
def retire(*, name: str, yes: bool, as_json: bool) -> None:
    """Take a device out of the fleet."""
    with open_fleet() as fleet:
        found = fleet.device(name)
        may_go_on(f"Take {name} out of the fleet?", yes=yes)
        fleet.retire(name)
    if as_json:
        print_json({"retired": name, "group": found.info.group})
    else:
        click.echo(f"{name} is out of the fleet")


@device.command()
@click.argument("name")
@click.option("--last", type=click.IntRange(1), default=100, show_default=True, help="Lines.")
@json_option
@common
def log(*, name: str, last: int, as_json: bool) -> None:
    """Print the newest lines of a device's runtime log, where the provider can read it."""
    with open_fleet() as fleet:
        lines = fleet.device(name).log(last=last)
    if as_json:
        print_json({"device": name, "lines": list(lines)})
    else:
        click.echo("\n".join(lines))
