"""Where requests come from, as the socket says: for limits, the audit log and who may observe.

Rules kept here:

- A socket that listens for IPv6 tells callers over IPv4 by mapped addresses (RFC 4291, 2.5.5.2).
  Those are the IPv4 addresses that operators write.
- A host of IPv6 has a network of 2⁶⁴ addresses to itself (RFC 4291, 2.5.4), and may ask from
  each: its requests count together.
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address

HOST_BITS = 64


def address_of(host: str) -> IPv4Address | IPv6Address:
    """The address that a socket tells of a caller, without its zone."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def counted_as(address: IPv4Address | IPv6Address) -> str:
    """What a caller's requests count for: an address of IPv4, a host's network of IPv6."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), HOST_BITS), strict=False))
    return str(address)
