"""By which names an address of this machine is asked.

A web page may let its own name lead to 127.0.0.1 once it is shown (DNS rebinding). What is served
there counts as the page's own then, and it may read every answer. The browser tells the name that
it asks by, as ``Host``. Rules kept here:

- A name that somebody out there may own is refused: one with a dot, unless it is below a domain
  that nobody gets, is this machine's own, or was allowed. So are no addresses, `localhost`, and
  names of containers.
- No name at all is no browser's.
- Who must bring a token or see a certificate isn't asked: the page has neither. A Unix socket isn't
  either, which no page reaches.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from typing import TYPE_CHECKING

from edgefleet_runtime.serve.messages import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefleet_runtime.serve.messages import Response

    Knows = Callable[[bytes], bool]
    """Whether a value of a ``Host`` header may be asked by."""

# RFC 6761, 6.3, and ICANN's resolution 2024.07.29.06: no registry gives names below these.
_NOBODYS = (".localhost", ".internal")
_PORT = re.compile(r":\d*\Z")


def known_hosts(allowed: Iterable[str] = (), *, own: str | None = None) -> Knows:
    """What knows the names that this machine may be asked by.

    Args:
        allowed: further names, as an operator gives them.
        own: this machine's; None looks.
    """
    names = {_name(name) for name in (*allowed, socket.gethostname() if own is None else own)}

    @lru_cache(maxsize=64)
    def knows(host: bytes) -> bool:
        name = _name(host.decode("latin-1"))
        if "." not in name or name in names or name.endswith(_NOBODYS):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    return knows


def misdirected(host: bytes) -> Response:
    """The answer to whoever asks by a name that isn't known."""
    shown = _name(host.decode("latin-1"))[:200]
    return refusal(
        421,
        f"nobody is served here by the name {shown!r}, which may be a web page's: ask 127.0.0.1, "
        f"or start the server with --allow-host {shown}",
    )


def _name(host: str) -> str:
    """Without port, brackets and the root's dot."""
    return _PORT.sub("", host.strip()).strip("[]").rstrip(".").lower()
