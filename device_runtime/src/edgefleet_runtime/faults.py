"""Points at which a test may cut the power: no-ops unless one is named in the environment.

``EDGEFLEET_FAULT_POINT=swap.saved`` kills this very process with SIGKILL when it gets to the point
of that name, ``…=fetch.chunk:3`` when it gets there for the third time, ``…=*:30`` at the thirtieth
point of any name. So the tests that promise
"the old release or the new one, never neither" kill a real process in real code.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "EDGEFLEET_FAULT_POINT"
ANY = "*"

_name, _, _count = os.environ.get(VARIABLE, "").partition(":")
_left = int(_count or 1)


def point(name: str) -> None:
    """Die here, at once and without clean-up, if the environment named this point."""
    global _left  # noqa: PLW0603 - a count down to death needs no object
    if _name in {name, ANY}:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
