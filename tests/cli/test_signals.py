"""Signals end a command whenever they come."""

from __future__ import annotations

import subprocess
import sys

STAYS = """\
import signal, threading
from edgefleet.cli.signals import heeding_signals, stay

def tell():
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

with heeding_signals():
    try:
        threading.Timer(0.3, tell).start()
        stay()
    except KeyboardInterrupt as stopped:
        print(type(stopped).__name__)
"""


def test_a_signal_that_does_not_interrupt_the_wait_ends_it_all_the_same() -> None:
    # One that another thread gets leaves the main thread's wait alone, as does one that comes just
    # before the wait begins.
    done = subprocess.run(
        [sys.executable, "-c", STAYS], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["Terminated"]
