"""``edgefleet lineage``: from an answer back to the data, from a sample on to the devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgefleet.cli.events import moment
from edgefleet.cli.options import common, json_option, open_fleet
from edgefleet.cli.output import print_json

if TYPE_CHECKING:
    from datetime import datetime

    from edgefleet.analysis.lineage import PredictionLineage, SampleLineage


@click.command()
@click.argument("what", metavar="EVENT_OR_SAMPLE")
@click.option("--device", metavar="NAME", help="That recorded the event: spares reading others'.")
@click.option("--since", metavar="TIME", type=moment, help="Of the event: 1h (ago), or ISO 8601.")
@click.option("--until", metavar="TIME", type=moment, help="Likewise; not included.")
@click.option(
    "--events", is_flag=True, help="Of a sample: read all events, too, for devices that have left."
)
@json_option
@common
def lineage(
    *,
    what: str,
    device: str | None,
    since: datetime | None,
    until: datetime | None,
    events: bool,
    as_json: bool,
) -> None:
    """Show where an answer came from, or what became of a sample.

    EVENT_OR_SAMPLE is the id of a prediction or of a sample's event, or sha256:… of a sample's
    inputs, as datasets name it.
    """
    is_sample = what.startswith("sha256:")
    if is_sample and (device or since or until):
        raise click.UsageError("--device, --since and --until are for events")
    if events and not is_sample:
        raise click.UsageError("--events is for samples")
    with open_fleet() as fleet:
        found: PredictionLineage | SampleLineage
        if is_sample:
            found = fleet.lineage.of_sample(what, events=events)
        else:
            found = fleet.lineage.of_prediction(what, device=device, since=since, until=until)
    if as_json:
        print_json(found.facts())
    else:
        click.echo(str(found))
