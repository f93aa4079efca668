"""One variant measured beside what serves: a process of its own, followed by a thread.

A candidate that nobody has run here may take much memory, or bring its process down: the process
keeps that from what serves, and its peak of memory is the variant's own. It ends with the runtime.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

import msgspec

from edgefleet.protocol.orders import MAX_REASON, TrialFigures
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.reconciler.duel import SHARE

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FIGURES = 64 << 10  # bytes of the process's answer


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a measuring process is told, on its standard input.

    Attributes:
        variant: its name.
        format: of its files; decides the engine.
        entry: path of the file that the engine opens.
        details: path of the variant's details.
        providers: execution providers wanted, the best first.
        calls: most calls to time.
        seconds: of running, after which few calls suffice.
        share: of the time that it may run.
    """

    variant: str
    format: str
    entry: str
    details: str
    providers: tuple[str, ...] = ()
    calls: int = 200
    seconds: float = 2.0
    share: float = SHARE


class Tryout:
    """One measurement in a process of its own.

    Args:
        request: what to measure.
        done: called when the process has ended, from another thread.
    """

    def __init__(self, request: Request, *, done: Callable[[], object] = lambda: None) -> None:
        self._request = request
        self._done = done
        self._said = b""
        self._ended = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgefleet_runtime.reconciler.tryout_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._thread = threading.Thread(target=self._follow, name="tryout", daemon=True)
        self._thread.start()

    def figures(self) -> TrialFigures | None:
        """What came of it; None while the process still works."""
        if not self._ended.is_set():
            return None
        try:
            return decoder(TrialFigures).decode(self._said)
        except UNREADABLE:
            return TrialFigures(
                variant=self._request.variant,
                format=self._request.format,
                outcome="failed",
                reason=how_it_ended(self._process.returncode),
            )

    def stop(self) -> None:
        """End the process, if it still works."""
        self._process.kill()
        self._thread.join()

    def _follow(self) -> None:
        with self._process as process:
            if process.stdin is not None and process.stdout is not None:
                self._said = self._talk(process.stdin, process.stdout)
        self._ended.set()
        self._done()

    def _talk(self, to: IO[bytes], of: IO[bytes]) -> bytes:
        try:
            to.write(msgspec.json.encode(self._request) + b"\n")
            to.flush()
        except OSError:
            return b""
        return of.read(MAX_FIGURES)


def how_it_ended(code: int) -> str:
    """Why a process gave no figures, by its exit code."""
    if code == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out"
    if code < 0:
        return f"it brought its process down: {signal.strsignal(-code) or f'signal {-code}'}"
    return f"its process ended with code {code}"[:MAX_REASON]
