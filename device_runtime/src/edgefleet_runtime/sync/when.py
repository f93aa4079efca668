"""When telemetry other than alarms may go: spans of the day, and links that cost money.

Nothing here remembers a moment: each question is answered by the clock and the file as they are
now, so that a clock that jumps years changes the answer at once and leaves nothing behind.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.channels.watched import read_small

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet.protocol.policy import Span

DAY_S = 86_400
LOOK_S = 1.0  # between two looks at a file
_MAX_BYTES = 64  # of what a script says
ALWAYS = {"yes": True, "no": False}
"""What an option says that names no file."""
_SAYS = {**ALWAYS, "true": True, "1": True, "false": False, "0": False}


def in_span(spans: Sequence[Span], now_s: float) -> bool:
    """Whether a moment lies in one of the spans; always, where there is none.

    Args:
        spans: times of day in UTC. One that ends before it starts goes over midnight; one that
            ends when it starts is the whole day.
        now_s: seconds since 1970.
    """
    second = now_s % DAY_S
    return not spans or any(_holds(span, second) for span in spans)


def _holds(span: Span, second: float) -> bool:
    start, end = _second(span.start), _second(span.end)
    if start < end:
        return start <= second < end
    return second >= start or second < end


def _second(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 3600 + int(minutes) * 60


class Metered:
    """Whether the link costs money by what goes over it; any thread may ask.

    Args:
        says: ``yes``, ``no``, or a file that a modem's script writes one of these into. A file that
            is missing or says something else means yes: what waits can still be sent, and what was
            paid for isn't given back.
        clock: monotonic seconds.

    Raises:
        InvalidInputError: it is empty.
    """

    def __init__(self, says: str, clock: Callable[[], float] = time.monotonic) -> None:
        if not says:
            raise InvalidInputError(
                "nothing says whether the link is metered", cure="give yes, no, or a file"
            )
        self._always = ALWAYS.get(says)
        self._path = Path(says)
        self._clock = clock
        self._looked_at: float | None = None
        self._latest = True

    def now(self) -> bool:
        """Whether it does now; a file is looked at once a second at most."""
        if self._always is not None:
            return self._always
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= LOOK_S:
            self._latest, self._looked_at = self._look(), now
        return self._latest

    def _look(self) -> bool:
        try:
            said = read_small(self._path, _MAX_BYTES)
        except OSError:
            return True
        return _SAYS.get(said.decode("utf-8", "replace").strip().lower(), True)
