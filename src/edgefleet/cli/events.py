"""``edgefleet events``: what devices recorded."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.options import common, json_option, open_fleet, span
from edgefleet.cli.output import print_json_line, say
from edgefleet.protocol.event import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgefleet.protocol.event import Event

_TOLD = 10  # segments set aside, by name
_NONE = "no events yet; what a group's devices record: edgefleet policy show GROUP"
_TEXT_CHARACTERS = 100  # of an event's data on one line


def moment(text: str) -> datetime:
    """A time: ``90s``, ``10m``, ``1h``, ``2d``, ``1w`` ago, or ISO 8601, in UTC without a zone.

    Raises:
        BadParameter: it is neither.
    """
    try:
        ago = span(text)
        found = datetime.fromisoformat(text) if ago is None else datetime.now(UTC) - ago
    except (ValueError, OverflowError) as error:
        msg = f"{text!r} is no time; write 1h, 30m or 2026-05-01T12:00Z"
        raise click.BadParameter(msg) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


@click.command()
@click.option(
    "--kind",
    type=click.Choice(list(KINDS)),
    help="Only this kind.",
)
@click.option("--model", metavar="NAME", help="Only events of this model.")
@click.option("--device", metavar="NAME", help="Only events of this device.")
@click.option("--since", metavar="TIME", type=moment, help="1h (ago), or ISO 8601.")
@click.option("--until", metavar="TIME", type=moment, help="Likewise; not included.")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many.")
@click.option("--follow", is_flag=True, help="Print new ones as they arrive, until Ctrl-C.")
@json_option
@common
def events(
    *,
    kind: str | None,
    model: str | None,
    device: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Read the events that devices recorded.

    In the order of devices and days. With --json an array, an event a line; with --json --follow an
    object a line. Segments that can't be read are set aside, and counted at the end on the standard
    error output.
    """
    if follow and (since or until):
        raise click.UsageError("--follow starts now: it goes with neither --since nor --until")
    with open_fleet() as fleet:
        if follow:
            news = fleet.telemetry.follow(kind=kind, model=model, device=device)
            _print_lines(islice(news, limit), as_json=as_json)
            return
        found = fleet.events(kind=kind, model=model, device=device, since=since, until=until)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of segments: they are told at the end
            if as_json:
                _print_array(islice(found, limit))
            elif not _print_lines(islice(found, limit), as_json=False):
                asked = (kind, model, device, since, until) != (None,) * 5
                say("no events match" if asked else _NONE)
        _tell_aside(found.unreadable)


def facts_of(event: Event) -> dict[str, Any]:
    """An event as JSON-ready data, with the device that the channel attributed it to."""
    return {**event.plain(), "device": event.device, "kind": event.kind}


def _tell_aside(unreadable: Mapping[str, str]) -> None:
    if not unreadable:
        return
    click.echo(f"{len(unreadable)} segments were set aside, because they can't be read:", err=True)
    for path, reason in islice(unreadable.items(), _TOLD):
        click.echo(f"  {path}: {reason}", err=True)
    if len(unreadable) > _TOLD:
        click.echo(f"  and {len(unreadable) - _TOLD} more", err=True)


def _print_lines(events: Iterable[Event], *, as_json: bool) -> int:
    """A line an event, as it comes; how many there were."""
    count = 0
    for count, event in enumerate(events, 1):  # noqa: B007 - the last one counts
        if as_json:
            print_json_line(facts_of(event))
        else:
            click.echo(_line(event))
    return count


def _print_array(events: Iterable[Event]) -> None:
    """A JSON array, written while it is read: there may be millions."""
    before = "["
    for event in events:
        click.echo(f"{before}\n{json.dumps(facts_of(event), ensure_ascii=False)}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def _line(event: Event) -> str:
    data = bytes(event.data).decode("utf-8", "replace")
    if len(data) > _TEXT_CHARACTERS:
        data = data[: _TEXT_CHARACTERS - 1] + "…"
    at = f"{event.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    return f"{at}  {event.device}  {event.kind}  {event.subject or '-'}  {data}"
