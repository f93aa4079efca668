"""What is made of files, and made anew when another puts other files in their place.

Rules kept here:

- What was made is shared until a file that it was made of is another one: a certificate or a token
  that is renewed counts with the next connection or request, and the process goes on.
- What is being replaced may not fit together for a moment: what was made before serves till then.
- What doesn't fit is told once, and not again until a file changes.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from edgefleet.errors import EdgeFleetError
from edgefleet_runtime.store.signature import signature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Renewing(Generic[_T]):
    """Gives one value to all who ask. Safe to share between threads.

    Args:
        what: it is, for the log.
        make: makes it.
        files: gives the files and folders that it is made of, which may be missing.
    """

    def __init__(
        self, what: str, make: Callable[[], _T], files: Callable[[], Iterable[Path]]
    ) -> None:
        self._what, self._make, self._files = what, make, files
        self._lock = threading.Lock()
        self._made: _T | None = None
        self._seen: object = None
        self._told: object = None

    def __call__(self) -> _T:
        """The value that goes by what the files are now.

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
                    if seen != self._told:
                        self._told = seen
                        _log.warning("%s that changed can't be used yet: %s", self._what, error)
                else:
                    self._seen = seen
            return self._made
