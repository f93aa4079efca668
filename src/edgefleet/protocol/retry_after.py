"""What a ``Retry-After`` header asks for: a number of seconds, or a date (RFC 9110, 10.2.3)."""

from __future__ import annotations

import email.utils
import re
import time
from datetime import UTC

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")  # some servers send fractions


def retry_after_s(value: str | None, *, now_s: float | None = None) -> float | None:
    """Seconds that a server asks to wait, 0 or more; None where it asks for nothing readable.

    Args:
        value: of the header; None where there is none.
        now_s: seconds since 1970; None for now.
    """
    asked = (value or "").strip()
    if _SECONDS.fullmatch(asked):
        return float(asked)
    try:
        date = email.utils.parsedate_to_datetime(asked)
    except (ValueError, OverflowError):  # the latter of numbers in it that are no date's
        return None
    if date.tzinfo is None:  # HTTP's dates are in UTC
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - (time.time() if now_s is None else now_s))
