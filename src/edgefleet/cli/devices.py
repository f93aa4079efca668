"""``edgefleet devices`` and ``device …``: what is in the fleet, and what comes and goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.enrolment import enroll, revoke
from edgefleet.cli.install_script import install_script
from edgefleet.cli.options import (
    common,
    help_without_command,
    json_option,
    label_option,
    number_option,
    open_fleet,
    yes_option,
)
from edgefleet.cli.output import may_go_on, print_json, print_table, say, when
from edgefleet.cli.signals import stay

if TYPE_CHECKING:
    from edgefleet.interfaces.values import DeviceInfo
    from edgefleet.protocol.orders import TrialFigures


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
        found = fleet.devices(group, labels=dict(labels))
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
        count = len(fleet.devices())
        say(f"running {count} device{'' if count == 1 else 's'}; Ctrl-C stops them")
        stay()


@click.group(invoke_without_command=True)
@common
@click.pass_context
def device(ctx: click.Context) -> None:
    """Enrol, revoke, retire, ask or order a device."""
    help_without_command(ctx)


device.add_command(enroll)
device.add_command(revoke)
device.add_command(install_script)


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
@number_option("--last", within=click.IntRange(1), default=100, about="Lines.")
@json_option
@common
def log(*, name: str, last: int, as_json: bool) -> None:
    """Print the newest lines of a device's runtime log, where the provider can read it."""
    with open_fleet() as fleet:
        lines = fleet.device(name).log(last=last)
    if as_json:
        print_json({"device": name, "lines": list(lines)})
    elif lines:
        click.echo("\n".join(lines))
    else:
        say(f"{name} has logged nothing yet")


@device.command()
@click.argument("name")
@json_option
@common
def status(*, name: str, as_json: bool) -> None:
    """Print a device's newest report, from the device itself.

    `edgefleet why` explains it. The cloud's copy, which that reads, may be older.
    """
    from edgefleet.protocol.documents import to_builtins

    with open_fleet() as fleet:
        report = fleet.device(name).status()
    if as_json:
        print_json({"device": name, **to_builtins(report)})
        return
    click.echo(f"{name}: {report.state}, pointer #{report.number}")
    for model in report.models:
        reason = f": {model.reason}" if model.reason else ""
        click.echo(f"  {model.name}:{model.version} ({model.variant}) {model.state}{reason}")
    if report.rolled_back is not None:
        click.echo(f"  the release wanted {report.rolled_back}")
    for error in report.errors:
        click.echo(f"  {error}")


@device.command()
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why, for people.")
@yes_option
@json_option
@common
def rollback(*, name: str, reason: str, yes: bool, as_json: bool) -> None:
    """Have one device serve its release before, at once.

    An emergency's means. The device keeps its pointer: any newer one ends this, and so does the
    next step of a rollout. `edgefleet rollback` takes a whole group back for good.
    """
    from edgefleet.protocol.documents import to_builtins

    with open_fleet() as fleet:
        found = fleet.device(name)
        may_go_on(f"Have {name} serve the release before?", yes=yes)
        answer = found.rollback(reason=reason)
    if as_json:
        print_json({"device": name, **to_builtins(answer)})
        return
    if answer.changed:
        click.echo(f"{name} serves the release before, until a pointer above #{answer.number}")
    else:
        held = "it was rolled back" if answer.rolled_back else "it rejected the release by itself"
        click.echo(f"nothing changed: {name} serves the release before already, because {held}")
    if not answer.remembered:
        say("its disk is full: a restart of the device ends this")


@device.command()
@click.argument("name")
@click.argument("model")
@number_option("--count", within=click.IntRange(1, 1000), default=1, about="Requests.")
@number_option(
    "--seconds",
    unit="SECONDS",
    within=click.FloatRange(min=0, max=3600, min_open=True),
    default=300.0,
    about="When that many didn't come, it ends.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why, for people; the samples hold it.")
@click.option("--order", metavar="ID", help="Ask what became of this order instead.")
@json_option
@common
def capture(*, name: str, model: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - handed on
    """Keep a model's next requests on a device as samples.

    Whatever share of them is recorded else. They come with the device's telemetry: see
    `edgefleet events --kind sample`. Inputs are among them where the group's telemetry
    policy says inputs = ["MODEL/INPUT"].
    """
    from edgefleet.protocol.documents import to_builtins

    with open_fleet() as fleet:
        answer = fleet.device(name).capture(model, **options)
    if as_json:
        print_json({"device": name, **to_builtins(answer)})
        return
    what = "requests with their inputs" if answer.inputs else "requests, without their inputs"
    lost = f", {answer.dropped} had no room" if answer.dropped else ""
    click.echo(f"order {answer.id}: {answer.captured} of {answer.count} {what}{lost}")
    for identity in answer.ids:
        click.echo(f"  {identity}")
    if answer.open:
        click.echo(
            f"it waits for more until {when(answer.until)} UTC; ask with --order {answer.id}"
        )


@device.command()
@click.argument("name")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--variant", "variants", multiple=True, help="Only this one; any number of times.")
@click.option("--max-bytes", type=click.IntRange(0), metavar="N", help="Most that it may fetch.")
@number_option("--calls", within=click.IntRange(5, 1000), default=200, about="A variant.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for people.")
@number_option(
    "--timeout",
    "timeout_s",
    unit="SECONDS",
    within=click.FloatRange(min=0, max=6 * 3600, min_open=True),
    default=1800.0,
    about="End it after so many seconds.",
)
@json_option
@common
def trial(*, name: str, bundle: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - handed on
    """Test and time a bundle's variants on a device, beside what serves there.

    BUNDLE is its folder. No version of it is made, and the device keeps nothing of it. Ctrl-C ends
    it there, too.
    """
    from edgefleet.interfaces.amounts import size_text
    from edgefleet.protocol.documents import to_builtins

    with open_fleet() as fleet:
        answer = fleet.device(name).trial(bundle, **options)
    if as_json:
        print_json({"device": name, **to_builtins(answer)})
        return

    def cells(found: TrialFigures) -> tuple[str, ...]:
        times = (found.p50_us, found.p99_us)
        return (
            found.variant,
            found.outcome,
            found.providers[0] if found.providers else "-",
            *("-" if one is None else f"{one / 1e3:.3g} ms" for one in times),
            size_text(found.memory_bytes),
            found.reason,
        )

    columns = ("variant", "outcome", "provider", "p50", "p99", "memory", "why")
    print_table(columns, [cells(found) for found in answer.figures], empty="no variants")
