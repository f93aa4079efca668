"""Ends a process with the one that started it, which holds the other end of its standard input."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def watch_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when standard input ends, as it does when the process that made us is gone."""
    _await_end()
    with contextlib.suppress(RuntimeError):  # the loop has ended already
        loop.call_soon_threadsafe(stop.set)


def end_with_parent() -> None:
    """End this process at once when standard input ends; for a thread of a process that is ours."""
    _await_end()
    os._exit(1)


def _await_end() -> None:
    with contextlib.suppress(OSError):  # closed from the start: nobody holds the other end
        while os.read(0, 4096):
            pass
