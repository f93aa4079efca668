"""One device's machine: starts its runtime process, notices its end, starts it again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from edgefleet_local.files import make_folder
from edgefleet_local.processes import birth, how_it_ended, signal_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_local.devices import Devices, Enrolment

FIRST_DELAY_S = 0.1  # before a runtime that died is started again
MAX_DELAY_S = 30.0
HEALTHY_S = 10.0  # a runtime that lived so long starts the delays afresh
STRAY_S = 10.0  # for a dead supervisor's runtime to notice and end by itself
MAX_LOG_BYTES = 16 << 20  # of a runtime's log; then it becomes runtime.1.log and a new one begins


_unforked = threading.Lock()
"""Held while a runtime starts: a fork in between would keep its standard input open unseen."""
os.register_at_fork(
    before=_unforked.acquire,
    after_in_parent=_unforked.release,
    after_in_child=_unforked.release,
)


class Machine:
    """A device's runtime process; used from the supervisor's thread only.

    Args:
        devices: where its folders lie.
        name: the device's.
        environment: all that its process sees.
    """

    def __init__(self, devices: Devices, name: str, environment: Mapping[str, str]) -> None:
        self._devices = devices
        self._name = name
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._record = devices.running(name)
        self._started = 0.0
        self._not_before = 0.0
        self._delay = 0.0
        self._asked: float | None = None
        self._stray_since: float | None = None

    def step(self, now: float) -> None:
        """Do what is due: start it, switch it off, note that it died."""
        off = self._devices.is_off(self._name)
        if self._process is not None:
            if off:
                self._process.kill()  # as a power cut would
            if self._collect(self._process, now) is None:
                self._cap_log()
                return
        if not off and now >= self._not_before and not self._stray(now):
            self._start(now)

    def _start(self, now: float) -> None:
        enrolment = self._devices.enrolment(self._name)
        if enrolment is None:  # retired this moment
            return
        make_folder(self._devices.machine(self._name))
        with _unforked, self._devices.log(self._name).open("ab") as log:
            self._process = subprocess.Popen(
                command(self._devices, self._name, enrolment),
                cwd=self._devices.machine(self._name),
                env=dict(self._environment),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started = now
        self._record = msgspec.structs.replace(
            self._record,
            pid=self._process.pid,
            born=birth(self._process.pid),
            starts=self._record.starts + 1,
        )
        self._devices.record_running(self._name, self._record)

    def _collect(self, process: subprocess.Popen[bytes], now: float) -> int | None:
        """The exit code of a process that has ended, noted once; None while it runs."""
        code = process.poll()
        if code is None:
            return None
        _close_pipe(process)
        self._process = None
        lived = now - self._started
        self._delay = FIRST_DELAY_S if lived > HEALTHY_S else _longer(self._delay)
        self._not_before = now + self._delay
        self._record = msgspec.structs.replace(self._record, last_exit=how_it_ended(code))
        if self._asked is None:  # else it may be retired, and its folder about to go
            self._devices.record_running(self._name, self._record)
        return code

    def _stray(self, now: float) -> bool:
        """Whether a runtime that a dead supervisor started still runs; it is ended in the end."""
        record = self._devices.running(self._name)
        if not record.now:
            self._stray_since = None
            return False
        self._stray_since = self._stray_since or now
        if now - self._stray_since > STRAY_S and record.pid is not None and record.born is not None:
            signal_process(record.pid, record.born, signal.SIGKILL)
        return True

    def _cap_log(self) -> None:
        """Copy a long log aside and empty it; the runtime goes on appending to the same file."""
        log = self._devices.log(self._name)
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > MAX_LOG_BYTES:
                shutil.copyfile(log, log.with_name("runtime.1.log"))
                os.truncate(log, 0)

    def ask_to_end(self, now: float) -> None:
        """Ask the runtime to end, if it runs and wasn't asked yet."""
        if self._process is not None and self._asked is None:
            self._asked = now
            self._process.terminate()

    def ended(self, now: float, patience_s: float) -> bool:
        """Whether it has ended; one asked longer than ``patience_s`` ago is ended by force."""
        if self._process is None:
            return True
        if self._asked is not None and now - self._asked > patience_s:
            self._process.kill()
        return self._collect(self._process, now) is not None

    def end_by(self, deadline: float) -> None:
        """Wait until it has ended, by force after the deadline (a time of the monotonic clock)."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._collect(self._process, time.monotonic())

    def forget(self) -> None:
        """In a forked child: let go of the pipe that keeps the parent's runtime alive."""
        if self._process is not None:
            _close_pipe(self._process)
            self._process.returncode = 0  # it isn't this process's child: nothing to wait for
            self._process = None


def command(devices: Devices, name: str, enrolment: Enrolment) -> list[str]:
    """The command line of a device's runtime."""
    words = [
        sys.executable,
        "-P",  # no module of the current folder may stand in for a real one
        "-m",
        "edgefleet_runtime",
        "run",
        "--root",
        str(devices.disk(name)),
        "--device",
        name,
        "--channel",
        "file",
        "-o",
        f"pointer={devices.channel(name) / 'pointer.json'}",
        "-o",
        f"outbox={devices.outbox(name)}",
        "--http",
        "127.0.0.1:0",
        "--exit-with-parent",
    ]
    for key, value in sorted(enrolment.labels.items()):
        words.append(f"--label={key}={value}")  # as one word: a key may begin with a dash
    return words


def _longer(delay: float) -> float:
    return min(MAX_DELAY_S, max(FIRST_DELAY_S, 2 * delay))


def _close_pipe(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
