"""A web server and a broker for actions of alarms."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from device_runtime.tests.left_sockets import collect_left_sockets
from device_runtime.tests.watch.receivers import Broker, Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.close()
    collect_left_sockets()
