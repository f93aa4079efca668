"""What verifies servers, made once a process instead of once a connection.

Making a context of TLS reads every authority that the system trusts, which costs more than the rest
of a small upload. Nobody changes a shared context: who needs another makes one of his own.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet_runtime.store.renewing import Renewing

if TYPE_CHECKING:
    from collections.abc import Callable


def system_files() -> tuple[Path, ...]:
    """Where this system's authorities lie; a folder's content is a change of the folder."""
    found = ssl.get_default_verify_paths()
    places: tuple[str | None, ...] = (found.cafile, found.capath)  # None where nothing is there
    return tuple(Path(place) for place in places if place is not None)


def _of_the_system() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])  # as http.client does for one of its own
    return context


system_context = Renewing("certificates", _of_the_system, system_files)
"""Verifies against this system's authorities, for HTTP."""


class Verified(urllib.request.HTTPSHandler):
    """HTTPS of an opener, by a context that is asked for with each connection."""

    def __init__(self, context: Callable[[], ssl.SSLContext] = system_context) -> None:
        urllib.request.AbstractHTTPHandler.__init__(self)  # the base would make a context
        self._given = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Begin a request."""
        return self.do_open(http.client.HTTPSConnection, req, context=self._given())
