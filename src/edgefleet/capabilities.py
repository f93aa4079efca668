"""Ask whether a backend can do a thing, and get it typed when it can."""

from __future__ import annotations

from typing import TypeVar

from edgefleet.errors import UnsupportedError
from edgefleet.interfaces.abilities import ABILITIES
from edgefleet.interfaces.service import Service

C = TypeVar("C", bound=Service)


def require(backend: Service, ability: type[C]) -> C:
    """The backend as one that has the ability.

    Raises:
        UnsupportedError: it lacks it; the message names what it can do.
    """
    if isinstance(backend, ability):
        return backend
    can = ", ".join(abilities_of(backend)) or "none of the optional operations"
    msg = f"the {backend.role} of provider {backend.provider!r} lacks {ability.__name__}"
    raise UnsupportedError(
        msg,
        cure=f"use a provider that has it; this one has: {can}",
        provider=backend.provider,
    )


def abilities_of(backend: Service) -> tuple[str, ...]:
    """Names of the optional operations that a backend has."""
    return tuple(ability.__name__ for ability in ABILITIES if isinstance(backend, ability))
