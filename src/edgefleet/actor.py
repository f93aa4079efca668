"""Who acts: for the logs of groups, and for plugins that permit or audit."""

from __future__ import annotations

import getpass
import os

ACTOR_VARIABLE = "EDGEFLEET_ACTOR"


def current_actor() -> str:
    """Who acts: what EDGEFLEET_ACTOR says, or else the user of this process."""
    named = os.environ.get(ACTOR_VARIABLE)
    if named:
        return named
    try:
        return getpass.getuser()
    except OSError:
        return "unknown"
