"""A process that forwards to a receiver until somebody kills it.

``python -m providers.gateway.tests.sinks.forwarder URL SCRATCH``; says how many events it took.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from edgefleet.interfaces.retrying import Pauses
from edgefleet.protocol.event import Alarm, new_event
from edgefleet_gateway.sinks.running import Forwarding
from edgefleet_gateway.sinks.settings import HttpSettings

IDS = [f"event-{number}" for number in range(20)]


def main(url: str, scratch: str) -> None:
    """Take events, and forward them for ever."""
    settings = HttpSettings(kind="http", name="plant", url=url, batch=5, timeout_s=600)
    pauses = Pauses(first_s=0.01, most_s=0.02, longest_told_s=0.5)
    forwarding = Forwarding([settings], Path(scratch), base=Path(scratch), pauses=pauses)
    alarm = Alarm(rule="stuck", message="the belt stands")
    forwarding.take("cam-1", [new_event(alarm, identity=one) for one in IDS])
    print("taken", flush=True)  # noqa: T201 - to whoever started it
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
