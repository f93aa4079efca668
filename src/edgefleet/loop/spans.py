"""Spans of time as people write them: ``90s``, ``30m``, ``24h``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MOST = timedelta(days=3650)


def span(text: object) -> timedelta:
    """The span that a text such as ``36h`` means.

    Raises:
        ValueError: it has another form, or is longer than ten years.
    """
    if isinstance(text, timedelta):
        return text
    found = _FORM.fullmatch(str(text).strip())
    if found is None:
        msg = f"{text!r} is no span of time: write 90s, 30m, 24h or 7d"
        raise ValueError(msg)
    # Compared as a number first: a timedelta of that many days may not exist.
    number, unit = float(found[1]), _UNITS[found[2]]
    if number > _MOST / timedelta(**{unit: 1}):
        msg = f"{text!r} is longer than ten years"
        raise ValueError(msg)
    return timedelta(**{unit: number})


def span_text(span: timedelta) -> str:
    """A span for people, in its largest unit that leaves no more than two digits."""
    seconds = max(0.0, span.total_seconds())
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


Span = Annotated[timedelta, BeforeValidator(span)]
