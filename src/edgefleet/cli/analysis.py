"""``edgefleet drift``, ``losses`` and ``cost``: what the recorded events tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.errors import FAILURE
from edgefleet.cli.events import moment
from edgefleet.cli.options import common, json_option, number_option, open_fleet

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from edgefleet.analysis.bill import Bill
    from edgefleet.analysis.drift_report import DriftReport
    from edgefleet.analysis.losses_report import Losses

since_option: Callable[[Any], Any] = click.option(
    "--since", metavar="TIME", type=moment, help="1h (ago), or ISO 8601."
)
until_option: Callable[[Any], Any] = click.option(
    "--until", metavar="TIME", type=moment, help="Likewise; not included."
)
group_option: Callable[[Any], Any] = click.option(
    "--group", metavar="GROUP", help="Only devices of this group."
)
plot_option: Callable[[Any], Any] = click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a picture, too: a PNG.",
)


@click.command()
@click.argument("model", metavar="MODEL")
@since_option
@until_option
@group_option
@click.option(
    "--by",
    type=click.Choice(["device", "group", "fleet"]),
    default="device",
    show_default=True,
    help="The finest level to judge.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["watch", "moved"]),
    help="Exit with 1 where the fleet's verdict is this, or worse.",
)
@plot_option
@json_option
@common
def drift(
    *,
    model: str,
    since: datetime | None,
    until: datetime | None,
    group: str | None,
    by: Any,  # noqa: ANN401 - click has checked it
    fail_on: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show how far a model's data has moved.

    What devices saw is held against what the bundle expects. MODEL is a name, or name:version.
    """
    with open_fleet() as fleet:
        found = fleet.drift(model, since=since, until=until, group=group, by=by)
    _show(found, plot, as_json=as_json)
    worse = {"watch": ("watch", "moved"), "moved": ("moved",)}
    if fail_on is not None and found.verdict in worse[fail_on]:
        click.get_current_context().exit(FAILURE)


@click.command()
@click.option("--model", metavar="NAME", help="Only events of this model or stream.")
@since_option
@until_option
@group_option
@plot_option
@json_option
@common
def losses(
    *,
    model: str | None,
    since: datetime | None,
    until: datetime | None,
    group: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show what devices had to drop.

    By their own accounts, of the days that they tell of.
    """
    with open_fleet() as fleet:
        found = fleet.losses(model, since=since, until=until, group=group)
    _show(found, plot, as_json=as_json)


@click.command()
@since_option
@until_option
@click.option(
    "--devices",
    metavar="N",
    type=click.IntRange(1),
    help="Estimate for so many, instead of measuring what was recorded.",
)
@click.option(
    "--policy",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Telemetry policy in TOML to estimate with; without it the profile's.",
)
@number_option(
    "--predictions-per-s",
    within=click.FloatRange(0.0),
    default=1.0,
    about="Of each device, to estimate with.",
)
@number_option("--alarms-per-day", within=click.FloatRange(0.0), default=1.0, about="Likewise.")
@number_option(
    "--model-bytes",
    within=click.IntRange(0),
    default=10_000_000,
    about="Of the variant that a device fetches.",
)
@number_option(
    "--releases-per-month",
    within=click.FloatRange(0.0),
    default=1.0,
    about="How often each device gets a new model.",
)
@number_option(
    "--keep-days",
    within=click.FloatRange(0.0),
    default=365.0,
    about="Recordings are deleted after so many days.",
)
@click.option(
    "--prices",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Prices in TOML, which go before those that the provider brings.",
)
@plot_option
@json_option
@common
def cost(
    *,
    since: datetime | None,
    until: datetime | None,
    devices: int | None,
    policy: Path | None,
    predictions_per_s: float,
    alarms_per_day: float,
    model_bytes: int,
    releases_per_month: float,
    keep_days: float,
    prices: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Show what telemetry and delivery cost a month.

    Measured from what was recorded, without --since in the last 30 days; with --devices estimated
    before anything is deployed.
    """
    with open_fleet() as fleet:
        found = fleet.cost(
            policy=policy,
            devices=devices,
            predictions_per_s=predictions_per_s,
            alarms_per_day=alarms_per_day,
            since=since,
            until=until,
            prices=prices,
            keep_days=keep_days,
            releases_per_month=releases_per_month,
            model_bytes=model_bytes,
        )
    _show(found, plot, as_json=as_json)


def _show(found: DriftReport | Losses | Bill, plot: Path | None, *, as_json: bool) -> None:
    if plot is not None:
        found.plot(plot)
    click.echo(found.to_json() if as_json else str(found))
