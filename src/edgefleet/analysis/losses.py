"""Losses: what devices had to drop for lack of room, by their own accounts.

An account tells of one device, spool and day, and its counts only grow: of several the one with the
highest number holds, in whatever order they came. A day is one by the device's own clock.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.analysis.losses_report import Damage, Kept, Losses, Unreadable
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.event import Account, HealthEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from edgefleet.interfaces.telemetry import Telemetry
    from edgefleet.protocol.event import Event, Tally

DAMAGED = "spool-damaged"  # what the health event of a device says whose spool was damaged
MAX_TOLD = 100


class Accounted(NamedTuple):
    """The tally of a device's day."""

    device: str
    day: str
    tally: Tally


def losses_of(
    telemetry: Telemetry,
    *,
    model: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    devices: Iterable[str] | None = None,
    reported: Mapping[str, int] | None = None,
) -> Losses:
    """Read the accounts of a fleet and add them up.

    Args:
        telemetry: where they are.
        model: only tallies of this model or stream.
        since: only accounts of days that end after this time.
        until: only accounts of days that begin before it.
        devices: only theirs; None for all.
        reported: how many events each device says in its report that it dropped, ever.

    Raises:
        InvalidInputError: a time has no zone.
    """
    health = telemetry.query(kind="health", since=since, until=until)
    wanted = None if devices is None else frozenset(devices)
    newest: dict[tuple[str, str, str], Account] = {}
    unusable: list[Unreadable] = []
    query = telemetry.query(kind="account", since=None if since is None else _day_of(since))
    for event in _of(query, wanted):
        account = _account(event, unusable)
        if account is None or not _within(account.day, since, until):
            continue
        key = (event.device, account.spool, account.day)
        if key not in newest or newest[key].number < account.number:
            newest[key] = account
    tallies = [
        Accounted(device, day, tally)
        for (device, _, day), account in newest.items()
        for tally in account.tallies
        if model is None or tally.model == model
    ]
    gone: dict[str, int] = defaultdict(int)
    for one in tallies:
        gone[one.device] += one.tally.dropped
    whole = since is None and until is None and model is None
    return Losses(
        model=model,
        since=since,
        until=until,
        devices=len({device for device, _, _ in newest}),
        kinds=_table(tallies, lambda _: ""),
        models=_table(tallies, lambda one: one.tally.model or "-"),
        classes=_table(tallies, lambda one: _class(one.tally)),
        bands=_table(tallies, lambda one: _band(one.tally)),
        by_device=_table(tallies, lambda one: one.device),
        days=_table(tallies, lambda one: one.day),
        damages=tuple(_damages(_of(health, wanted))),
        unaccounted={
            device: count - gone[device]
            for device, count in sorted((reported or {}).items())
            if whole and count > gone[device] and (wanted is None or device in wanted)
        },
        unusable=tuple(unusable[:MAX_TOLD]),
        unusable_count=len(unusable),
        unreadable={**query.unreadable, **health.unreadable},
    )


def _of(events: Iterable[Event], wanted: frozenset[str] | None) -> Iterator[Event]:
    return (event for event in events if wanted is None or event.device in wanted)


def _account(event: Event, unusable: list[Unreadable]) -> Account | None:
    try:
        found = event.payload()
        if isinstance(found, Account):
            date.fromisoformat(found.day)
            return found
        why = "it is no account"
    except ValueError as error:  # our own errors of input are some, too
        why = str(error)
    unusable.append(Unreadable(device=event.device, event=event.id, why=why[:500]))
    return None


def _day_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _within(day: str, since: datetime | None, until: datetime | None) -> bool:
    begins = datetime.fromisoformat(day).replace(tzinfo=UTC)
    if since is not None and begins + timedelta(days=1) <= since:
        return False
    return until is None or begins < until


def _table(
    tallies: Iterable[Accounted], name: Callable[[Accounted], str | None]
) -> tuple[Kept, ...]:
    """Sums by kind and name; what has no name is left out."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in tallies:
        found = name(one)
        if found is not None:
            counts = sums[one.tally.kind, found]
            counts[0] += one.tally.seen
            counts[1] += one.tally.dropped
    rows = (
        Kept(kind=kind, name=found, seen=seen, dropped=dropped)
        for (kind, found), (seen, dropped) in sums.items()
    )
    return tuple(
        sorted(rows, key=lambda row: (-_total(sums, row.kind), row.kind, _order(row.name)))
    )


def _total(sums: Mapping[tuple[str, str], list[int]], kind: str) -> int:
    return sum(seen for (of, _), (seen, _) in sums.items() if of == kind)


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (-1, name)


def _class(tally: Tally) -> str | None:
    return None if tally.top is None else str(tally.top)


def _band(tally: Tally) -> str | None:
    if tally.band is None:
        return None
    return f"{tally.band / 10:.1f}-{(tally.band + 1) / 10:.1f}"


def _damages(events: Iterable[Event]) -> Iterator[Damage]:
    for event in events:
        try:
            found = event.payload()
        except InvalidInputError:
            continue  # of no interest here: the event is there for whoever reads health events
        if isinstance(found, HealthEvent) and found.what == DAMAGED:
            yield Damage(device=event.device, time=event.time, message=found.message)
