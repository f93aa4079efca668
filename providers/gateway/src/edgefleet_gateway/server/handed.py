"""Which waiting requests a device has been told of lately, so that it isn't told again at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AGAIN_S = 30.0  # after which a request that was handed out and not answered is told of again


class Handed:
    """What this gateway handed out.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._given: dict[str, dict[str, float]] = {}  # device -> request -> until

    def fresh(self, device: str, waiting: tuple[str, ...]) -> tuple[str, ...]:
        """Those that a device should be told of."""
        given = self._given.get(device)
        if not given:
            return waiting
        if not waiting:
            del self._given[device]
            return ()
        now = self._clock()
        return tuple(one for one in waiting if given.get(one, now) <= now)

    def open(self, device: str, waiting: tuple[str, ...]) -> tuple[str, ...]:
        """Those that nobody answered here."""
        given = self._given.get(device, {})
        return tuple(one for one in waiting if given.get(one) != float("inf"))

    def give(self, device: str, requests: Iterable[str]) -> None:
        """Remember that a device has these now."""
        until = self._clock() + AGAIN_S
        given = self._given.setdefault(device, {})
        given.update((one, until) for one in requests)

    def answered(self, device: str, request: str) -> None:
        """Remember that a device answered one."""
        self._given.setdefault(device, {})[request] = float("inf")
