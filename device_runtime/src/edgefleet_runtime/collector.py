"""Python's garbage collector in a process that serves: out of its way.

It walks through all modules again and again while they are imported, which is a tenth of a cold
start; and through all that a process started with in each full collection, for some 30 ms in which
nobody is answered.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def starting() -> Iterator[None]:
    """Collect nothing until `started`, or the end of the block."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def started() -> None:
    """Collect again, but leave alone what was made so far."""
    gc.freeze()
    gc.enable()
