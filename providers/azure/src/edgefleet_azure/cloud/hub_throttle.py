"""How often an IoT Hub takes each kind of operation: a bucket a kind, filled by the hub's units.

https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling, of S1.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from edgefleet_azure.cloud.hub_values import HubError

if TYPE_CHECKING:
    from collections.abc import Callable


class Pace(NamedTuple):
    """How often a kind of operation may come.

    Attributes:
        per_minute: of one unit.
        at_least: a minute, however few units there are.
    """

    per_minute: float
    at_least: float = 0.0


PACES = {
    "configuration": Pace(20),
    "query": Pace(20),
    "identity": Pace(100),
    "twin read": Pace(60, 6000),
    "twin update": Pace(60, 3000),
}


class Throttle:
    """Buckets of one hub.

    Args:
        units: of the hub; an S1 hub has 1 to 200.
        clock: gives the time, in seconds.
    """

    def __init__(self, units: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.units = units
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}
        self.refused = 0
        """How many operations found their bucket empty."""

    def take(self, kind: str) -> None:
        """Count an operation.

        Raises:
            HubError: 429, with the seconds until there is room again.
        """
        pace = PACES[kind]
        most = max(pace.per_minute * self.units, pace.at_least)
        with self._lock:
            now = self._clock()
            left, at = self._left.get(kind, (most, now))
            left = min(most, left + (now - at) * most / 60)
            if left < 1:
                self._left[kind] = (left, now)
                self.refused += 1
                wait_s = max(1, math.ceil((1 - left) * 60 / most))
                raise HubError(
                    429,
                    "ThrottlingException",
                    f"{most:g} {kind} operations a minute are allowed. Wait {wait_s} seconds and "
                    "try again",
                    retry_after_s=wait_s,
                )
            self._left[kind] = (left - 1, now)
