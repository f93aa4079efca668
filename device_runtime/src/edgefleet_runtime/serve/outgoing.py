"""The last step of an answer: into the transport, and to whoever observes."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_Ts = TypeVarTuple("_Ts")

_log = logging.getLogger(__name__)

JOINED_BELOW = 1 << 16  # bytes; above, copying an answer together costs more than a second write


def write(
    transport: asyncio.WriteTransport, head: bytes, body: tuple[bytes | memoryview, ...]
) -> None:
    """Hand an answer over in as few writes as its size allows."""
    if sum(map(len, body)) < JOINED_BELOW:
        transport.write(b"".join((head, *body)))
    else:
        transport.writelines((head, *body))


def call_observer(after: Callable[[], object]) -> None:
    """Call what was to be called after an answer; its failure is only logged."""
    try:
        after()
    except Exception:  # noqa: BLE001 - the answer is given
        _log.exception("an observer of requests failed")


def behind(call: Callable[[*_Ts], object], *about: *_Ts) -> None:
    """Call behind the answer where this thread gives it, as an event loop's does, or else at once.

    What is called while the processor's caches are full of a model takes many times as long. Its
    failure is only logged, without what it was called with: an event loop's own words repeat that.
    """
    after = partial(call, *about)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        call_observer(after)
    else:
        loop.call_soon(call_observer, after)
