"""Pauses in long work of the spool's thread: who is answered meanwhile doesn't wait for it.

Python runs one thread at a time. A thread that works on and on takes turns with the one that
serves, several times a request; in slices with pauses between them it is met by few requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SLICE = 32  # events that are worked on in one go, in about half a millisecond
PAUSE_S = 0.001  # between two slices

T = TypeVar("T")


class Leisure:
    """Lets work be done slice by slice.

    Args:
        hurried: whether something waits for this thread; there are no pauses then.
        pause: waits for so many seconds, or less.
    """

    def __init__(
        self,
        hurried: Callable[[], bool] = lambda: True,
        pause: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._hurried = hurried
        self._pause = pause

    def through(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with a pause after every slice of them."""
        for number, item in enumerate(items):
            if number and number % SLICE == 0 and not self._hurried():
                self._pause(PAUSE_S)
            yield item
