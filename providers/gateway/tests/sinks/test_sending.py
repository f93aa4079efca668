"""What carries events to a sink, when it is called at the worst moment."""

from __future__ import annotations

import threading
from pathlib import Path

from edgefleet.testing.waiting import eventually
from edgefleet_gateway.sinks.base import Sink
from edgefleet_gateway.sinks.outbox import Outbox
from edgefleet_gateway.sinks.sending import Sending


def unmade() -> Sink:
    raise AssertionError("there is nothing to send")


def test_an_end_that_comes_while_it_looks_for_work_is_seen(tmp_path: Path) -> None:
    sending = Sending("plant", Outbox(tmp_path / "plant.sqlite", max_bytes=1 << 20), unmade)

    class Late(threading.Event):
        """Is told to end, and only then cleared."""

        def clear(self) -> None:
            sending.stop()
            super().clear()

    waited_for, sending._work = sending._work, Late()
    for one in (waited_for, sending._work):
        one.set()
    try:
        eventually(lambda: not sending._thread.is_alive())
    finally:
        sending.close()
