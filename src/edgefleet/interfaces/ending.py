"""Waiting for something that a backend runs to come to its end, where a person may look on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgefleet.errors import WaitTimeoutError
from edgefleet.interfaces.progress import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.training import RunState

POLL_S = 0.2  # seconds between looks at a run that is being waited for


class _HasState(Protocol):
    @property
    def state(self) -> RunState: ...


S = TypeVar("S", bound=_HasState)


def wait_for_end(
    what: str,
    look: Callable[[], S],
    cancel: Callable[[], object],
    *,
    tell: Callable[[S], str],
    timeout_s: float | None,
    progress: bool,
    poll_s: float,
) -> S:
    """The status with which something ended. Ctrl-C cancels it.

    Args:
        what: its name, for the line that is shown and for errors.
        look: gives its status now.
        cancel: ends it.
        tell: what the line says of a status beside ``what``.
        timeout_s: give up waiting after so many seconds; it goes on. None for never.
        progress: show the line where a person looks.
        poll_s: seconds between looks.

    Raises:
        WaitTimeoutError: it took longer.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with Status(what, enabled=progress) as line:
        try:
            while not (status := look()).state.ended:
                if line.shown:  # telling may cost calls
                    line.update(f"{what}: {tell(status)}")
                if deadline is not None and time.monotonic() >= deadline:
                    msg = f"{what} is still {status.state.value} after {timeout_s} s"
                    raise WaitTimeoutError(msg, cure="wait again, or cancel it with its cancel()")
                time.sleep(poll_s)
        except KeyboardInterrupt:
            cancel()
            raise
    return status
