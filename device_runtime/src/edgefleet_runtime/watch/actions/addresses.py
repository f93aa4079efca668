"""Addresses that actions may connect to: those of this machine and of its local networks.

A name is resolved once, and the address that was checked is the one that is connected to: an answer
that changes in between (DNS rebinding) leads nowhere.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Resolve = Callable[[str, int], Sequence[str]]

LOCAL = tuple(
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "fe80::/10", "fc00::/7"),
    )
)
METADATA = frozenset(map(ip_address, ("169.254.169.254", "169.254.170.2", "fd00:ec2::254")))
"""Where clouds give credentials to whoever asks from a machine; no action has business there."""


def resolved(host: str, port: int) -> Sequence[str]:
    """Addresses of a host, as this machine's resolver gives them.

    Raises:
        OSError: there are none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in found]


def allowed_address(host: str, port: int, hosts: Sequence[str], resolve: Resolve = resolved) -> str:
    """The address to connect to.

    Args:
        host: a name or an address.
        port: of it.
        hosts: names that may be anywhere.
        resolve: gives the addresses of a name.

    Raises:
        AccessDeniedError: the host lies outside this machine and its local networks.
        UnavailableError: it has no address now.
    """
    try:
        found = list(resolve(host, port))
    except (OSError, UnicodeError) as error:
        raise UnavailableError(f"{host} has no address: {error}") from error
    anywhere = host.lower() in {name.lower() for name in hosts}
    for text in found:
        if anywhere or is_local(text):
            return text
    where = ", ".join(found[:3]) or "nothing"
    raise AccessDeniedError(
        f"{host} is {where}, which is not on a local network",
        cure=f"start the runtime with --alarm-host {host}, if that is meant",
    )


def is_local(text: str) -> bool:
    """Whether an address is this machine's own, or of a local network."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address not in METADATA and any(address in network for network in LOCAL)
