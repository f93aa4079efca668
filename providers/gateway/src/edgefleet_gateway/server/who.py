"""Whose request it is: the device that the connection's certificate names, if it still counts."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.protocol.gateway import EXPIRED, REVOKED, UNKNOWN
from edgefleet_gateway.server.peer import Peer, read_peer
from edgefleet_gateway.server.problems import RefusedError

if TYPE_CHECKING:
    from datetime import datetime

    from edgefleet_gateway.mirror import Mirror
    from edgefleet_gateway.records import DeviceRecord


class Caller(NamedTuple):
    """A device that may ask.

    Attributes:
        device: its name.
        record: what the fleet knows of it.
        peer: what its certificate says.
    """

    device: str
    record: DeviceRecord
    peer: Peer


async def identify(
    der: bytes | None, mirror: Mirror, *, fleet: str, now: datetime, grace: timedelta
) -> Caller:
    """The device that a certificate speaks for.

    Args:
        der: the certificate of the connection; None where there is none.
        mirror: what is known of devices.
        fleet: UUID of this fleet.
        now: by the gateway's clock.
        grace: how long after its end a certificate counts here.

    Raises:
        RefusedError: none, of another fleet, unknown, revoked or expired.
        UnavailableError: it can't be known now.
    """
    if der is None:
        raise RefusedError(
            401,
            "this needs the certificate of a device",
            detail="enrol the device: edgefleet device enroll NAME --group GROUP",
        )
    peer = read_peer(der)
    if peer is None or peer.fleet != fleet:
        raise RefusedError(403, "this certificate names no device of this fleet", code=UNKNOWN)
    record = await mirror.device(peer.device)
    if record is None or not record.allows(peer.serial):
        record = await mirror.device_again(peer.device, peer.serial)
    if record is None:
        raise RefusedError(
            403,
            "this fleet knows no such device",
            detail="enrol the device again: edgefleet device enroll NAME --group GROUP",
            code=UNKNOWN,
        )
    if not record.allows(peer.serial):
        raise RefusedError(
            403,
            "this certificate was revoked",
            detail="enrol the device again: edgefleet device enroll NAME --group GROUP --replace",
            code=REVOKED,
        )
    if now > peer.ends + grace:
        raise RefusedError(
            403,
            "this certificate ended",
            detail="renew it"
            if not grace
            else "it ended too long ago to be renewed: enrol the device again",
            code=EXPIRED,
        )
    return Caller(peer.device, record, peer)
