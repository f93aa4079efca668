"""``edgefleet status``, ``history`` and ``why``: what is so, how it came, and why."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from edgefleet.cli.options import common, json_option, number_option, open_fleet
from edgefleet.cli.output import print_json, print_json_line, print_table, when

if TYPE_CHECKING:
    from edgefleet.fleet import Fleet
    from edgefleet.rollout.judgement import FleetStatus, GroupStatus


@click.command()
@click.argument("group", required=False)
@click.option("--watch", is_flag=True, help="Print it again whenever it changes, until Ctrl-C.")
@number_option(
    "--interval",
    "interval_s",
    unit="SECONDS",
    within=click.FloatRange(min=0.05),
    default=1.0,
    about="Between two looks of --watch.",
)
@json_option
@common
def status(*, group: str | None, watch: bool, interval_s: float, as_json: bool) -> None:
    """Show what devices attest that they run.

    Every group, or one. An outcome is attested (the device says that it serves the release),
    pending (it is offline or on the way) or failed (it rejected the release and runs what it ran
    before).
    """
    with open_fleet() as fleet:
        if watch:
            _watch(fleet, group, interval_s, as_json=as_json)
        found = fleet.status(group)
    if as_json:
        print_json(found.facts())
    else:
        _print(found)


def _watch(fleet: Fleet, group: str | None, interval_s: float, *, as_json: bool) -> None:
    """Print until Ctrl-C."""
    before = ""
    while True:
        found = fleet.status(group)
        shown = str(found)
        if shown != before:
            before = shown
            if as_json:
                print_json_line(found.facts())
            else:
                if sys.stdout.isatty():
                    click.clear()
                _print(found)
        time.sleep(interval_s)


def _print(found: FleetStatus) -> None:
    if not found.groups:
        click.echo(str(found))
    for number, group in enumerate(found.groups):
        if number:
            click.echo()
        _print_group(group)


def _print_group(group: GroupStatus) -> None:
    print_table(
        ("device", "outcome", "running", "last seen (UTC)", "why"),
        [
            (
                d.device,
                d.outcome.value,
                ", ".join(d.running) or "-",
                when(d.last_seen),
                d.why,
            )
            for d in group.devices
        ],
        caption=group.headline,
        empty="no devices",
    )
    if group.candidate is not None:
        click.echo(f"a cohort tries release {group.candidate[:19]}…")


@click.command()
@click.argument("group")
@json_option
@common
def history(*, group: str, as_json: bool) -> None:
    """Show what was done to a group.

    The newest first.
    """
    from edgefleet.protocol.documents import to_builtins

    with open_fleet() as fleet:
        entries = fleet.history(group)
    if as_json:
        print_json({"group": group, "entries": [to_builtins(entry) for entry in entries]})
        return
    print_table(
        ("pointer", "when (UTC)", "who", "action", "models", "release"),
        [
            (
                f"#{entry.number}",
                when(entry.at),
                entry.actor,
                entry.action,
                ", ".join(entry.models) or "nothing",
                entry.release[7:19],
            )
            for entry in entries
        ],
        empty="nothing was done to it yet",
    )


@click.command()
@click.argument("device")
@json_option
@common
def why(*, device: str, as_json: bool) -> None:
    """Explain what one device runs, and why.

    Wanted and actual release, the step it stopped at, evidence from cloud and device, and the cure.
    """
    with open_fleet() as fleet:
        found = fleet.why(device)
    if as_json:
        print_json(found.facts())
    else:
        click.echo(str(found))
