"""Pointer: the only thing a channel carries, under 1 KB because twins and shadows are small.

Rules kept here:

- (``epoch``, ``number``) rises over a fleet's life; a device keeps the highest pair that it has
  taken and refuses a lower one, another fleet's, and the same pair with other content.
- Rollback is a new, higher pointer to an old release.
- A device takes ``next`` when `in_cohort` says so: a wave is one write, an abort is permille 0.
- ``sources`` are stable addresses, never signed URLs, never secrets.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from edgefleet.errors import DocumentError, InvalidInputError
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, encode

MAX_BYTES = 1024  # bytes of an encoded pointer
SCHEMES = frozenset({"s3", "https", "http", "gs", "oci", "file", "az"})

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]")

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Permille = Annotated[int, msgspec.Meta(ge=0, le=1000)]
FleetId = Annotated[
    str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
]


class Cohort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stable share of the devices: those with ``hash(salt, device) mod 1000 < permille``."""

    salt: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
    permille: Permille


class Next(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The release that a cohort takes ahead of the others."""

    release: Digest
    cohort: Cohort


class Pointer(Document, frozen=True, kw_only=True):
    """Which release a group runs.

    Attributes:
        fleet: UUID given at enrolment.
        epoch: rises when a lost counter had to be rebuilt.
        number: rises with every pointer of the fleet; gaps are allowed.
        current: digest of the release to run.
        next: a release that a cohort runs instead.
        sources: addresses below which ``blobs/sha256/<hex>`` lies, in order of preference.
        issued: when the operator wrote it; informational, devices' clocks are not trusted.
        expires: after this a device takes no new pointer from here but goes on serving.
        signatures: detached signatures; none is defined yet.
    """

    fleet: FleetId
    epoch: Annotated[int, msgspec.Meta(ge=0)]
    number: Annotated[int, msgspec.Meta(ge=1)]
    current: Digest
    sources: Annotated[tuple[str, ...], msgspec.Meta(max_length=8)]
    issued: Timestamp
    next: Next | None = None
    expires: Timestamp | None = None
    signatures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse sources that carry secrets or are no addresses."""
        for source in self.sources:
            check_source(source)

    @property
    def pair(self) -> tuple[int, int]:
        """(epoch, number): what orders pointers."""
        return (self.epoch, self.number)

    def encoded(self) -> bytes:
        """Canonical bytes, at most `MAX_BYTES`."""
        return encode(self, max_bytes=MAX_BYTES)

    def release_for(self, device: str) -> str:
        """Digest of the release that this device should run."""
        if self.next is not None and in_cohort(self.next.cohort, device):
            return self.next.release
        return self.current


def check_source(source: str) -> str:
    """Return ``source`` if it is a stable address without credentials, query or fragment.

    Raises:
        InvalidInputError: it is not; the message repeats nothing of it, which may be a secret.
    """
    scheme, colon, rest = source.partition("://")
    if not colon or scheme not in SCHEMES:
        msg = "not a source address: its scheme is none that devices know"
        raise InvalidInputError(msg, cure=f"start it with one of {', '.join(sorted(SCHEMES))}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority or "?" in rest or "#" in rest:
        msg = f"a {scheme} source carries a user, a query or a fragment, so it is no stable address"
        raise InvalidInputError(msg, cure="give access to devices apart from the pointer")
    if _UNPRINTABLE.search(source) or not _has_place(source):
        msg = f"a {scheme} source is no address: bad host, port or path, or blanks in it"
        raise InvalidInputError(msg, cure="write scheme://host/path, or file:///path")
    return source


def _has_place(source: str) -> bool:
    try:
        parts = urlsplit(source)
        port = parts.port
    except ValueError:  # repeats the address, so nothing of it may go on
        return False
    if parts.scheme == "file":
        return parts.netloc in ("", "localhost") and parts.path.startswith("/")
    return bool(parts.hostname) and port != 0


def in_cohort(cohort: Cohort, device: str) -> bool:
    """Whether a device belongs to a cohort; the same answer on every machine and in every version.

    The first 8 bytes of SHA-256 over salt, a zero byte and the device's name, as a big-endian
    integer, modulo 1000.
    """
    seed = hashlib.sha256(f"{cohort.salt}\0{device}".encode()).digest()
    return int.from_bytes(seed[:8], "big") % 1000 < cohort.permille


def read_pointer(data: bytes) -> Pointer:
    """Decode a pointer from a channel; see `documents.decode` for the errors."""
    return decode(Pointer, data, max_bytes=MAX_BYTES)


def check_successor(held: Pointer | None, offered: Pointer, *, fleet: str | None = None) -> bool:
    """Whether a device that holds ``held`` should act on ``offered``.

    Args:
        held: the highest pointer that the device has taken.
        offered: what its channel brought.
        fleet: the fleet that the device was enrolled in, where it knows; a ``held`` of another
            fleet is then from before the device moved and counts as none.

    Returns:
        False when it is the pointer already held, True when it is newer.

    Raises:
        DocumentError: it belongs to another fleet, is older than the one held, or has the same pair
            with other content.
    """
    if held is not None and fleet not in (None, held.fleet):
        held = None
    own = held.fleet if held is not None else fleet
    if own is not None and offered.fleet != own:
        msg = f"pointer of another fleet: {offered.fleet}, this device belongs to {own}"
        raise DocumentError(msg, cure="enrol the device again if it has moved")
    if held is None or offered.pair > held.pair:
        return True
    if offered.pair < held.pair:
        msg = f"pointer {offered.pair} is older than {held.pair}, which this device has taken"
        raise DocumentError(msg, cure="publish a new pointer; numbers never go back")
    if offered != held:
        msg = f"two different pointers carry the number {offered.pair}"
        raise DocumentError(msg, cure="publish again with the next number")
    return False
