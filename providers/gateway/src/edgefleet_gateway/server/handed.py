"""Which waiting requests a device has been told of lately, so that it isn't told again at once."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AGAIN_S = 30.0  # after which a request that was handed out and not answered is told of again
DEVICES = 10_000  # that are remembered; one that is forgotten is told again


class Handed:
    """What this gateway handed out.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # device -> request -> until; whoever took or answered one last is at the end
        self._given: OrderedDict[str, dict[str, float]] = OrderedDict()

    def fresh(self, device: str, waiting: tuple[str, ...]) -> tuple[str, ...]:
        """Those that a device should be told of."""
        given = self._given.get(device)
        if not given:
            return waiting
        if not waiting:
            del self._given[device]
            return ()
        for gone in given.keys() - waiting:
            del given[gone]
        now = self._clock()
        return tuple(one for one in waiting if given.get(one, now) <= now)

    def open(self, device: str, waiting: tuple[str, ...]) -> tuple[str, ...]:
        """Those that nobody answered here."""
        given = self._given.get(device, {})
        return tuple(one for one in waiting if given.get(one) != float("inf"))

    def give(self, device: str, requests: Iterable[str]) -> None:
        """Remember that a device has these now."""
        until = self._clock() + AGAIN_S
        self._of(device).update((one, until) for one in requests)

    def answered(self, device: str, request: str) -> None:
        """Remember that a device answered one."""
        self._of(device)[request] = float("inf")

    def _of(self, device: str) -> dict[str, float]:
        given = self._given.setdefault(device, {})
        self._given.move_to_end(device)
        if len(self._given) > DEVICES:
            self._given.popitem(last=False)
        return given
