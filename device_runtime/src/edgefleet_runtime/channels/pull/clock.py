"""What time it is where the gateway is, and whether a certificate is valid then.

A device without a battery for its clock starts in 1970, or on the day its image was made. So times
of certificates are judged here and not by the TLS library: a gateway's certificate has to be valid
by this device's clock or, where it isn't, by the gateway's own. All else of it is verified as ever,
against the authority that the device was enrolled with and no other.
"""

from __future__ import annotations

import email.utils
import math
import ssl
import time
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOLERATED_S = 120.0  # by which clocks may differ without a word; pointers take seconds on the way
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which `ssl` has no name for."""


class GatewayClock:
    """The gateway's time, by this device's clock and what answers said last.

    Args:
        now: seconds since 1970, by this device's clock.
        of: whose time it is, for people.
    """

    def __init__(self, now: Callable[[], float] = time.time, *, of: str = "the gateway") -> None:
        self._now, self._of = now, of
        self._ahead_s = 0.0
        self.known = False
        """Whether an answer said what time it is there."""

    def here(self) -> float:
        """Seconds since 1970 by this device's clock."""
        return self._now()

    def there(self) -> float:
        """Seconds since 1970 by the gateway's, as far as it is known."""
        return self._now() + (self._ahead_s if abs(self._ahead_s) > TOLERATED_S else 0.0)

    def heard(self, date: str | None) -> float | None:
        """Take note of an answer's ``Date``; returns it in seconds since 1970, None for none."""
        try:
            parsed = email.utils.parsedate_to_datetime(date or "")
        except (ValueError, TypeError, OverflowError):
            return None
        there = parsed.replace(tzinfo=parsed.tzinfo or UTC).timestamp()
        self._ahead_s, self.known = there - self._now(), True
        return there

    def said(self) -> str | None:
        """For people: by how much this device's clock is wrong; None where it isn't."""
        if abs(self._ahead_s) <= TOLERATED_S:
            return None
        # In whole units, so that the words stay the same while it stays so.
        minutes = math.floor(abs(self._ahead_s) / 60)
        apart = timedelta(minutes=minutes)
        if apart >= timedelta(days=2):
            words = f"{apart.days} days"
        elif minutes >= 120:
            words = f"{minutes // 60} hours"
        else:
            words = f"{minutes} minutes"
        which = "behind" if self._ahead_s > 0 else "ahead of"
        return f"this device's clock is {words} {which} {self._of}'s"


def valid_at(certificate: Mapping[str, object], seconds: float) -> bool:
    """Whether a certificate, as `ssl.SSLSocket.getpeercert` gives it, is valid at a moment."""
    try:
        begins = ssl.cert_time_to_seconds(str(certificate["notBefore"]))
        ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    except (KeyError, ValueError):
        return False
    return begins <= seconds <= ends
