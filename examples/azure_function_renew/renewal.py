"""Renew the access of a fleet's devices, and say what was done: what the timer runs."""

from __future__ import annotations

import logging
from pathlib import Path

import edgefleet as ef

HERE = Path(__file__).parent
_log = logging.getLogger(__name__)


def renew(config: Path = HERE / "edgefleet.toml") -> int:
    """Renew what has passed half of its time.

    Args:
        config: the file of profiles, published with the function.

    Returns:
        How many groups, and fleets' devices, were given new access.
    """
    with ef.connect(config=config) as fleet:
        found = fleet.renew_access(progress=False)
    terms = [term for given in found.values() for term in given]
    for term in terms:
        if term.renewed:
            whose = term.group or "all devices"
            _log.info("%s of %s lasts until %s", term.kind.value, whose, term.ends)
    return sum(term.renewed for term in terms)
