"""A plain Linux machine of the mock: its disk, its power, and systemd for one service.

What `edgefleet device enroll` prints installs the runtime and has it show its token. Here the
runtime is installed already, so a machine only does the latter, with the runtime's own command, and
then runs it as the unit does: started again whenever it ends, until the power goes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import UnavailableError
from edgefleet.testing.cloud.child import kept_environment
from edgefleet.testing.mock import without_proxy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

ENROLL_S = 120.0  # to make a key and get a certificate, on a machine that is busy
END_S = 9.0  # from SIGTERM to SIGKILL; the runtime gives itself 8 s
RESTART_S = 0.2  # from the runtime's end to its next start; the unit's RestartSec, made short
_SAID = 4000  # characters of a log that an error shows


class Told(NamedTuple):
    """What a machine is told on its first evening.

    Attributes:
        gateway: its address.
        pins: of gateways' public keys: ``sha256//…``, with semicolons between.
        token: that makes it part of the fleet.
    """

    gateway: str
    pins: str
    token: str


class Machine:
    """One device.

    Args:
        folder: its disk, its switch, its log.
        name: the device's.
        under: words that its commands are run by, such as ``ip netns exec NAME``, which a process
            replaces by the command.
    """

    def __init__(self, folder: Path, name: str, *, under: Sequence[str] = ()) -> None:
        self.name = name
        self._folder = folder
        self._under = under
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._off = threading.Event()
        self._turning = threading.Lock()

    @property
    def disk(self) -> Path:
        """What is kept when the power goes."""
        return self._folder / "disk"

    @property
    def identity(self) -> Path:
        """Its key and certificate."""
        return self.disk / "identity"

    @property
    def log(self) -> Path:
        """What its runtime says."""
        return self._folder / "runtime.log"

    @property
    def is_switched_on(self) -> bool:
        """Whether it runs, or would if the mock did."""
        return self.identity.is_dir() and not (self._folder / "off").exists()

    @property
    def pid(self) -> int | None:
        """Its runtime's process; None while none runs."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def join(self, told: Told, labels: Mapping[str, str]) -> None:
        """Become part of the fleet.

        Args:
            told: by the operator.
            labels: that its runtime is started with.

        Raises:
            UnavailableError: it didn't; the message has what the machine said.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{key}={value}\n" for key, value in sorted(labels.items()))
        (self._folder / "labels").write_text(lines, encoding="utf-8")
        words = ["enroll", "--gateway", told.gateway, "--pin", told.pins, "--root", str(self.disk)]
        done = subprocess.run(
            [*self._under, *_RUNTIME, *words],
            input=told.token.encode(),
            capture_output=True,
            env=_environment(),
            timeout=ENROLL_S,
            check=False,
        )
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")[-_SAID:]
            raise UnavailableError(f"the mock's device {self.name!r} didn't join: {said}")

    def start(self) -> None:
        """Run the runtime, and again whenever it ends; no error where it runs."""
        with self._turning:
            if self._thread is not None:
                return
            self._off.clear()
            (self._folder / "off").unlink(missing_ok=True)
            self._thread = threading.Thread(
                target=self._run, name=f"edgefleet-mock-{self.name}", daemon=True
            )
            self._thread.start()

    def cut(self) -> None:
        """Cut the power: what runs is killed, and stays down until `start`, also for a new mock."""
        (self._folder / "off").touch()
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """End the runtime in order; the machine starts with the next mock on this folder."""
        self._end(signal.SIGTERM)

    def ask_to_end(self) -> None:
        """Have the runtime begin to end; `shut_down` waits for it."""
        self._off.set()
        self._signal(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        with self._turning:
            thread, self._thread = self._thread, None
            self._off.set()
            if thread is None:
                return
            while thread.is_alive():  # a runtime that starts in this moment gets the next signal
                self._signal(number)
                thread.join(END_S)
                number = signal.SIGKILL

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def _run(self) -> None:
        while not self._off.is_set():
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(),
                    cwd=self._folder,
                    env=_environment(),
                    stdin=subprocess.PIPE,  # so that it ends with this process, however that ends
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            if self._off.is_set():
                self._signal(signal.SIGKILL)
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._off.wait(RESTART_S)

    def _command(self) -> list[str]:
        words = [*self._under, *_RUNTIME, "run", "--root", str(self.disk), "--device", self.name]
        words += ["--channel", "pull", "-o", f"identity={self.identity}"]
        words += ["--http", "127.0.0.1:0", "--exit-with-parent"]
        for label in (self._folder / "labels").read_text(encoding="utf-8").splitlines():
            words += ["--label", label]
        return words


_RUNTIME = (sys.executable, "-P", "-m", "edgefleet_runtime")


def _environment() -> dict[str, str]:
    """A machine has nothing of this one's but what a Python needs."""
    return {**kept_environment(), **without_proxy()}
