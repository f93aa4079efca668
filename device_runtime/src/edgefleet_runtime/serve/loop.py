"""The fastest event loop that is installed, and no long pauses of Python's own in it."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes uvloop's event loop; None where it isn't installed (it has no Windows build)."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run ``main`` to its end, as `asyncio.run` does, and return what it returns."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)


def keep_from_collector() -> None:
    """Have Python's garbage collector leave alone, from now on, what was made so far.

    For a process that has started: its modules and models stay. Each full collection would walk
    through all of them, for some 30 ms in which nobody is answered.
    """
    gc.freeze()
