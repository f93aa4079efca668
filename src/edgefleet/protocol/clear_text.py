"""Where a secret may be sent: over TLS, or within this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from edgefleet.errors import ConfigurationError


def check_private(address: str) -> str:
    """Return an address that a token may be sent to, without a slash at its end.

    Raises:
        ConfigurationError: others on the way could read it.
    """
    parts = urlsplit(address)
    if parts.scheme != "https" and not _is_here(parts.hostname or ""):
        raise ConfigurationError(
            f"a token would go to {parts.hostname} unencrypted",
            cure="give the address with https, or run what it leads to on this machine",
        )
    return address.rstrip("/")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
