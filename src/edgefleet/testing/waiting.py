"""Waiting, in tests, for what another thread, process or device brings about."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

TIMEOUT_S = 120.0  # for what takes a second where nothing is wrong, on a machine with much to do
LONGEST_S = 1.0  # between two questions, however long one takes
SHARE = 4  # asking takes one part in so many of the time: the rest is for what is waited for


def eventually(
    condition: Callable[[], T | None],
    what: str | Callable[[], object] = "",
    *,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
    meanwhile: Callable[[], object] | None = None,
    apart_s: float = 0.01,
    timeout_s: float = TIMEOUT_S,
) -> T:
    """The first true value of a condition that somebody else brings about.

    Args:
        condition: asked again and again, once at least.
        what: is waited for, to tell where it never came; a function is called only then.
        ignoring: errors of the condition that mean "not yet".
        meanwhile: done between two questions.
        apart_s: least pause between two questions, in seconds; questions that take long lie farther
            apart (`pause_after`).
        timeout_s: gives up after so many seconds; a test says only that it must happen, not how
            soon.

    Raises:
        AssertionError: it never became true; from the last error that was ignored.
    """
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while True:
        last: Exception | None = None
        asked = time.monotonic()
        try:
            if value := condition():
                return value
        except ignoring as error:
            last = error
        answered = time.monotonic()
        if answered >= deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"never became true: {told or condition}") from last
        if meanwhile is not None:
            meanwhile()
        pause.wait(pause_after(answered - asked, apart_s))


def pause_after(took_s: float, apart_s: float) -> float:
    """Seconds until the next question: so many that asking doesn't hold up what it asks about.

    Args:
        took_s: what the last question took.
        apart_s: the least pause.
    """
    return max(apart_s, min((SHARE - 1) * took_s, LONGEST_S))
