"""What verifies servers, made once a process instead of once a connection.

Making a context of TLS reads every authority that the system trusts, which costs more than the rest
of a small upload. Rules kept here:

- A context is shared until a file that it was made of is another one: a system that is updated, or
  a certificate that is renewed, counts with the next connection, and the process goes on.
- What is being replaced may not fit together for a moment: what was made before serves till then.
- Nobody changes a shared context: who needs another makes one of his own.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet_runtime.store.signature import signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_log = logging.getLogger(__name__)


class SharedContext:
    """Gives one context to all who ask. Safe to share between threads.

    Args:
        make: makes it.
        files: gives the files and folders that it is made of, which may be missing.
    """

    def __init__(
        self, make: Callable[[], ssl.SSLContext], files: Callable[[], Iterable[Path]]
    ) -> None:
        self._make, self._files = make, files
        self._lock = threading.Lock()
        self._made: ssl.SSLContext | None = None
        self._seen: object = None

    def __call__(self) -> ssl.SSLContext:
        """The context that goes by what the files are now.

        Raises:
            EdgeFleetError, OSError: the first can't be made; what ``make`` raised.
        """
        with self._lock:
            seen = [(path, signature_of(path)) for path in self._files()]  # before they are read
            if self._made is None or seen != self._seen:
                try:
                    self._made = self._make()
                except (EdgeFleetError, OSError) as error:  # ssl.SSLError is one
                    if self._made is None:
                        raise
                    _log.warning("certificates that changed can't be used yet: %s", error)
                else:
                    self._seen = seen
            return self._made


def system_files() -> tuple[Path, ...]:
    """Where this system's authorities lie; a folder's content is a change of the folder."""
    found = ssl.get_default_verify_paths()
    places: tuple[str | None, ...] = (found.cafile, found.capath)  # None where nothing is there
    return tuple(Path(place) for place in places if place is not None)


def _of_the_system() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])  # as http.client does for one of its own
    return context


system_context = SharedContext(_of_the_system, system_files)
"""Verifies against this system's authorities, for HTTP."""


class Verified(urllib.request.HTTPSHandler):
    """HTTPS of an opener, by a context that is asked for with each connection."""

    def __init__(self, context: Callable[[], ssl.SSLContext] = system_context) -> None:
        urllib.request.AbstractHTTPHandler.__init__(self)  # the base would make a context
        self._given = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Begin a request."""
        return self.do_open(http.client.HTTPSConnection, req, context=self._given())
