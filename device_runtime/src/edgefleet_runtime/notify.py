"""Tells systemd that this runtime is ready, lives, or stops: sd_notify(3), over a datagram socket.

Rules kept here:

- Without ``NOTIFY_SOCKET`` nothing is sent, and a socket that is gone harms nobody.
- A sign of life is sent from the event loop, so a loop that hangs sends none; and only while the
  reconciler keeps the promises it makes to its `Pulse`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

SOCKET = "NOTIFY_SOCKET"
WATCHDOG = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"


class Pulse:
    """A thread's promise to be heard of again in time. Any thread may look.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = math.inf

    def beat(self, within_s: float) -> None:
        """Be there now, and promise to be there again within so many seconds."""
        self._due = self._clock() + within_s

    def late(self) -> bool:
        """Whether the last promise wasn't kept; nothing was promised before the first."""
        return self._clock() > self._due


class ServiceManager:
    """What started this process, if it wants to hear of it.

    Args:
        environment: as systemd sets it.
        pid: of this process.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        self._address = environment.get(SOCKET, "")
        mine = environment.get(WATCHDOG_PID, "") in {"", str(os.getpid() if pid is None else pid)}
        timeout = environment.get(WATCHDOG, "")
        self.every_s: float | None = None
        """Seconds between signs of life, half of what is allowed; None where none are wanted."""
        if self._address and mine and timeout.isascii() and timeout.isdecimal() and int(timeout):
            self.every_s = int(timeout) / 2e6

    def ready(self) -> None:
        """Say that this process serves and follows its fleet."""
        self._tell("READY=1")

    def alive(self) -> None:
        """Say that this process makes progress."""
        self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that this process ends in order."""
        self._tell("STOPPING=1")

    def _tell(self, what: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):  # in Linux' abstract namespace
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.setblocking(False)  # the loop waits for nobody
                one.sendto(what.encode(), address)
        except (OSError, ValueError) as error:
            _log.warning("the service manager can't be told %s: %s", what, error)


async def keep_alive(manager: ServiceManager, healthy: Callable[[], bool]) -> None:
    """Tell a service manager of life until cancelled, each time that ``healthy`` says yes."""
    if manager.every_s is None:
        return
    said = False
    while True:
        if healthy():
            manager.alive()
            said = False
        elif not said:
            said = True
            _log.error("the reconciler makes no progress: the service manager isn't told of life")
        await asyncio.sleep(manager.every_s)
