"""When devices were seen last, by which gateway, and what it means that one is silent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.protocol.documents import decode
from edgefleet_gateway.records import SEEN_EVERY_S, DeviceRecord, Keys, SeenRecord

if TYPE_CHECKING:
    from edgefleet.interfaces.state import StateStore
    from edgefleet_gateway.settings import GatewaySettings

GATEWAY_S = 300.0  # a gateway that wrote nothing for so long is gone
MISSED_POLLS = 2.5  # a device that asked nothing for so many polls is gone
_KEY = re.compile(r"(?P<gateway>[^/]+)/\d+\.json")


class Sighting(NamedTuple):
    """When a device asked a gateway for anything last."""

    at: datetime
    gateway: str


class Silence(NamedTuple):
    """Why nothing comes from a device, and what to do about it."""

    why: str
    cure: str


class Sightings(NamedTuple):
    """What all gateways saw.

    Attributes:
        written: what each wrote, by its name.
    """

    written: tuple[tuple[str, SeenRecord], ...]

    def of(self, device: str) -> Sighting | None:
        """When a device was seen last; None for never."""
        found = ((one.devices.get(device), name) for name, one in self.written)
        newest = max(((at, name) for at, name in found if at is not None), default=None)
        return (
            None if newest is None else Sighting(datetime.fromtimestamp(newest[0], UTC), newest[1])
        )

    def no_gateway(self, now: datetime) -> Silence | None:
        """That none runs; None where one does."""
        newest = max((one.written for _, one in self.written), default=None)
        cure = "start one with: edgefleet gateway serve"
        if newest is None:
            return Silence("no gateway has ever been seen", cure)
        if now - newest <= timedelta(seconds=GATEWAY_S):
            return None
        return Silence(f"no gateway has been seen for {_said(now - newest)}", cure)


def read_sightings(state: StateStore, keys: Keys) -> Sightings:
    """What all gateways wrote: a read for each, and one more for each 10,000 devices or so."""
    written = []
    for key in state.keys(keys.seen_all):
        match = _KEY.fullmatch(key.removeprefix(keys.seen_all))
        stored = state.read(key) if match else None
        if match is not None and stored is not None:
            written.append((match["gateway"], decode(SeenRecord, stored.data)))
    return Sightings(tuple(written))


def lasts(settings: GatewaySettings) -> timedelta:
    """How long a device counts as connected after it was seen."""
    poll_s = max(settings.poll_s, settings.longest_wait_s)
    return timedelta(seconds=MISSED_POLLS * poll_s + 2 * SEEN_EVERY_S)


def why_silent(
    device: str,
    record: DeviceRecord,
    *,
    last_seen: datetime | None,
    sightings: Sightings,
    settings: GatewaySettings,
    now: datetime,
) -> Silence | None:
    """Why nothing comes from a device; None where it should answer.

    Args:
        device: its name.
        record: its record.
        last_seen: when it was heard of last; None for never.
        sightings: of all gateways.
        settings: of the profile.
        now: the reader's clock.
    """
    again = f"edgefleet device enroll {device} --group {record.group} --replace"
    if record.revoked:
        return Silence("its identity was revoked", f"run there what this prints: {again}")
    by_stick = _by_stick(last_seen, sightings.of(device), settings=settings, now=now)
    expired = _expired(record, settings=settings, now=now, again=again)
    if expired is not None and not by_stick:
        return expired
    if last_seen is not None and now - last_seen <= lasts(settings):
        return None
    none = sightings.no_gateway(now)
    if none is not None and not by_stick:
        return none
    if last_seen is None:
        return _never_seen(device, record)
    why = f"it was last seen {_said(now - last_seen)} ago"
    cure = f"look at its power and network; while it is up it asks every {settings.poll_s:g} s"
    if by_stick:
        network = next((one.cure for one in (expired, none) if one is not None), cure)
        cure = f"if a stick reaches it, carry one there and import it here; else {network}"
    return Silence(why, cure)


def _by_stick(
    last_seen: datetime | None,
    sighting: Sighting | None,
    *,
    settings: GatewaySettings,
    now: datetime,
) -> bool:
    """Whether a device's last word came by other hands than a gateway's.

    A gateway writes whom it saw some seconds later: of what came just now, nobody can tell.
    """
    if last_seen is None or now - last_seen <= lasts(settings):
        return False
    return sighting is None or last_seen - sighting.at > lasts(settings)


def _expired(
    record: DeviceRecord, *, settings: GatewaySettings, now: datetime, again: str
) -> Silence | None:
    """That a device's certificate keeps it from every gateway; receipts of a stick still count."""
    ended = max((one.ends for one in record.certificates), default=None)
    if ended is None or now - ended <= timedelta(days=settings.renew_days):
        return None
    why = f"access expired: its certificate ended on {ended:%Y-%m-%d}, too long ago to renew it"
    return Silence(why, f"run there what this prints: {again}")


def _never_seen(device: str, record: DeviceRecord) -> Silence:
    if record.certificates:
        return Silence(
            "it joined, and has asked for nothing since",
            "look there at what its runtime says: journalctl -u edgefleet-runtime",
        )
    command = f"edgefleet device enroll {device} --group {record.group}"
    return Silence("it has not come yet", f"run there what this prints: {command}")


def _said(age: timedelta) -> str:
    """A length of time for people."""
    seconds = int(age.total_seconds())
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= unit:
            count = seconds // unit
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{seconds} s"
