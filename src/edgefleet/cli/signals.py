"""Signals that end a command, and staying until one comes."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from edgefleet.cli.errors import Terminated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Python runs a signal's handler between two steps of the main thread. A signal that comes just
# before a wait begins doesn't end the wait, so every wait for one has an end.
LOOK_S = 0.5


@contextmanager
def heeding_signals() -> Iterator[None]:
    """SIGTERM ends a command like Ctrl-C does, so that what it started is stopped.

    And SIGINT does so even where a shell has it ignored, as in a script's background jobs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Terminated

    handlers = {signal.SIGTERM: stop, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stay() -> NoReturn:
    """Stay until a signal ends the command."""
    while True:
        time.sleep(LOOK_S)
