"""Parts of the watch that raise: left out for that item, counted, and told of once a release."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from edgefleet.protocol.event import HealthEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.rules.judge import Tell

_log = logging.getLogger(__name__)


class Guard:
    """Calls parts, and survives what they do; on any thread.

    Args:
        tell: takes health events.
    """

    def __init__(self, tell: Tell) -> None:
        self.failures = 0
        """Calls in which a part raised."""
        self._tell = tell
        self._told: set[int] = set()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A release begins: tell of each part once more."""
        with self._lock:
            self._told.clear()

    def __call__(self, part: object, call: Callable[..., object], *what: object) -> None:
        """Call a part's method with what it is to look at."""
        try:
            call(*what)
        except Exception as error:  # noqa: BLE001 - the other parts go on, and so does this one
            with self._lock:
                self.failures += 1
                told = id(part) in self._told
                self._told.add(id(part))
            if told:
                return
            name = type(part).__name__
            _log.exception("the watch's part %s failed", name)
            said = f"{name} failed: {type(error).__name__}: {error}"[:512]
            self._tell(HealthEvent(what="watch-failed", message=said))
