"""Where a secret may be sent: over TLS, or within this machine."""

from __future__ import annotations

import ipaddress
import os
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


def address_told(variable: str, otherwise: str) -> str:
    """The address that an environment variable gives a service, without a slash at its end.

    Args:
        variable: holds an address, or a host and port that speak plain HTTP; it may be missing.
        otherwise: the service's own address.

    Raises:
        ConfigurationError: others on the way could read a token that is sent there.
    """
    told = os.environ.get(variable)
    if not told:
        return otherwise
    return check_private(told if "://" in told else f"http://{told}")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
