"""A job's script in a mock cloud: a child process that is ended with all that it started.

Vendors' services give a container a time to end by itself and then kill it. Here, too: SIGTERM,
a grace, SIGKILL for everything in its session. It sees nothing of this machine's environment but
what a Python needs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

GRACE_S = 2.0  # between SIGTERM and SIGKILL; vendors give 30 to 120 s
_KEPT = ("PATH", "HOME", "LANG")


class Why(Enum):
    """Why a child ended."""

    ITSELF = auto()
    ASKED = auto()
    TIME = auto()


class Ended(NamedTuple):
    """How a child ended. ``status`` is as of `subprocess.Popen.returncode`."""

    why: Why
    status: int


def kept_environment() -> dict[str, str]:
    """What a child sees of this machine's environment."""
    return {key: os.environ[key] for key in _KEPT if key in os.environ}


def run_child(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    pump: Callable[[io.BufferedReader], object],
    ending: threading.Event,
    limit_s: float,
) -> Ended:
    """Run a command to its end, or until it is told to end.

    Args:
        command: its words.
        folder: that it starts in.
        environment: all that it sees.
        pump: reads its output, standard error included, until nobody is left who could print more.
        ending: set from elsewhere to have it end; set here when it has ended by itself.
        limit_s: it is ended after so many seconds.
    """
    child = subprocess.Popen(
        list(command),
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def tell_end() -> None:
        child.wait()
        ending.set()

    reading = threading.Thread(target=pump, args=(child.stdout,), daemon=True)
    waiting = threading.Thread(target=tell_end, daemon=True)
    reading.start()
    waiting.start()
    why = Why.ITSELF
    if not ending.wait(limit_s):
        why = Why.TIME
    elif child.poll() is None:
        why = Why.ASKED
    _end(child)
    reading.join()
    waiting.join()
    return Ended(why, child.returncode)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):  # whatever the first process has left
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
