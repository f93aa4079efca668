"""Who a client certificate says that its holder is.

TLS has checked that the fleet's authority signed it for a client, and that the client holds its
key. Its end, and whether it still counts, are checked at each request, by `who`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509

from edgefleet.protocol.names import DEVICE_PATTERN
from edgefleet_gateway.certificates import serial_of

if TYPE_CHECKING:
    from datetime import datetime

KEPT = 20_000  # certificates whose reading is remembered
_NAME = re.compile(r"urn:edgefleet:(?P<fleet>[0-9a-f-]{36}):device:(?P<device>.{1,128})")


class Peer(NamedTuple):
    """What a certificate says.

    Attributes:
        device: name of the device.
        fleet: UUID of its fleet.
        serial: its serial number, in hexadecimal.
        ends: when it ends.
    """

    device: str
    fleet: str
    serial: str
    ends: datetime


@lru_cache(maxsize=KEPT)
def read_peer(der: bytes) -> Peer | None:
    """What a certificate says; None for one that names no device."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return None
    addresses = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    found = _NAME.fullmatch(addresses[0]) if len(addresses) == 1 else None
    if found is None or not re.match(DEVICE_PATTERN, found["device"]):
        return None
    return Peer(
        device=found["device"],
        fleet=found["fleet"],
        serial=serial_of(certificate),
        ends=certificate.not_valid_after_utc,
    )
