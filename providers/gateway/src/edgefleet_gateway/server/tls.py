"""TLS of the listening side: the gateway's own certificate, and who may show one.

Devices' certificates are checked against the fleet's authority alone, but not for their dates: one
that ended may still renew itself, and `who` refuses it everything else. Without a certificate the
connection stands, for devices that are about to enrol.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of openssl/x509_vfy.h; Python names it not


class Material(NamedTuple):
    """What a gateway serves with.

    Attributes:
        certificate: its certificate and those that lead to its authority, PEM.
        key: its key, PEM.
        authorities: that sign devices' certificates, PEM.
        changed: differs when the files were written anew.
    """

    certificate: Path
    key: Path
    authorities: str
    changed: tuple[int, ...] = ()


def server_context(material: Material) -> ssl.SSLContext:
    """A context for the listening side; another one where an authority is believed no longer.

    Raises:
        ConfigurationError: certificate or key can't be read, or don't belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= NO_CHECK_TIME
    context.num_tickets = 1  # devices hold one connection, and resume it alone
    try:
        context.load_cert_chain(material.certificate, material.key)
        context.load_verify_locations(cadata=material.authorities)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"a gateway can't serve with {material.certificate}: {error}",
            cure="check the certificate, and that the key belongs to it",
        ) from error
    return context
