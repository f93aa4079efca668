"""Runs a coroutine on the fastest event loop that is installed."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")

SWITCH_S = 0.0002
"""How long another thread may go on while this one waits for Python's lock. Its own default of 5 ms
is what a request would wait for a reconciler or a spool in the middle of a computation."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes uvloop's event loop; None where it isn't installed (it has no Windows build)."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run ``main`` to its end, as `asyncio.run` does, and return what it returns.

    Takes the process for a server: the event loop's thread comes before the others.
    """
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)
