"""The supervisor: runs one runtime process a device, in whichever process holds the fleet's lock.

Rules kept here:

- One process at a time holds the lock. The system lets go of it however that process ends, and
  another one that waits takes over.
- A runtime lives no longer than its supervisor: it ends when its standard input does.
- What is enrolled runs, whoever enrolled it; what is retired or switched off doesn't; what dies is
  started again, later each time it dies young.
- Runtimes are in sessions of their own: Ctrl-C in a terminal or notebook doesn't reach them.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from edgefleet_local.devices import Devices
from edgefleet_local.files import try_lock
from edgefleet_local.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

LOOK_S = 0.2  # between two looks at what should run and what does
END_S = 9.0  # between asking the runtimes to end and ending them; they give themselves 8 s

_log = logging.getLogger(__name__)
_all: weakref.WeakSet[Supervisor] = weakref.WeakSet()


class Supervisor:
    """Runs the devices of a folder while no other process does.

    Args:
        home: the fleet's folder.
    """

    def __init__(self, home: Path) -> None:
        self._devices = Devices(home)
        self._lock = home / "locks" / "supervisor"
        self._machines: dict[str, Machine] = {}
        self._retired: list[Machine] = []
        self._handle: int | None = None
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._ending = threading.Event()
        self._starting = threading.Lock()
        self._environment: dict[str, str] = {}

    @property
    def runs_devices(self) -> bool:
        """Whether this very supervisor holds the lock now."""
        return self._handle is not None

    def start(self) -> None:
        """Run devices, or wait for one's turn to, in a thread of its own; returns at once.

        Devices see the environment that this process has now.
        """
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            self._environment = dict(os.environ)
            self._ending.clear()
            self._thread = threading.Thread(
                target=self._run, name="edgefleet-supervisor", daemon=True
            )
            self._thread.start()
            _all.add(self)
            atexit.register(self.close)

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    def close(self) -> None:
        """End what was started here and let another take over. Returns when nothing is left."""
        with self._starting:
            if self._thread is None:
                return
            self._ending.set()
            self._woken.set()
            self._thread.join()
            self._thread = None
            _all.discard(self)
            atexit.unregister(self.close)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._handle = try_lock(self._lock)
            except OSError as error:
                _log.warning("can't take the supervisor's lock: %s", error)
            if self._handle is None:
                self._pause()
                continue
            try:
                self._supervise()
            finally:
                self._end_all()
                os.close(self._handle)
                self._handle = None

    def _pause(self) -> None:
        self._woken.wait(LOOK_S)
        self._woken.clear()

    def _supervise(self) -> None:
        while not self._ending.is_set():
            try:
                self._look()
            except Exception:  # noqa: BLE001 - whatever it is, the devices that run must go on
                _log.exception("a look at the devices failed")
            self._pause()

    def _look(self) -> None:
        now = time.monotonic()
        names = set(self._devices.names())
        for name in self._machines.keys() - names:
            machine = self._machines.pop(name)
            machine.ask_to_end(now)
            self._retired.append(machine)
        for name in sorted(names - self._machines.keys()):
            self._machines[name] = Machine(self._devices, name, self._environment)
        for machine in self._machines.values():
            machine.step(now)
        self._retired = [machine for machine in self._retired if not machine.ended(now, END_S)]

    def _end_all(self) -> None:
        machines = [*self._machines.values(), *self._retired]
        now = time.monotonic()
        for machine in machines:
            machine.ask_to_end(now)
        for machine in machines:
            machine.end_by(now + END_S)
        self._machines.clear()
        self._retired.clear()

    def _forget(self) -> None:
        """In a forked child: lock and runtimes are the parent's, so keep nothing of them open."""
        atexit.unregister(self.close)
        self._starting, self._woken = threading.Lock(), threading.Event()
        self._thread = None
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        for machine in (*self._machines.values(), *self._retired):
            machine.forget()
        self._machines.clear()
        self._retired.clear()


def _after_fork() -> None:
    for supervisor in list(_all):
        supervisor._forget()  # noqa: SLF001 - the same module
    _all.clear()


os.register_at_fork(after_in_child=_after_fork)
