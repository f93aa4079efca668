"""Stopping a server: what has begun is finished, and nothing waits for ever."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.serving import (
    LIVE,
    WAIT_S,
    FakeModel,
    infer_bytes,
    read_all,
    read_replies,
    served,
    serving,
    table_of,
)

if TYPE_CHECKING:
    from device_runtime.tests.serving import Gate


def test_stopping_finishes_what_has_begun(gate: Gate) -> None:
    table = table_of(served(FakeModel(1, gate)))
    with serving(table) as running, running.connect() as busy, running.connect() as idle:
        idle.sendall(LIVE)
        read_replies(idle)
        busy.sendall(infer_bytes(1))
        gate.wait_for_run()
        stopper = threading.Thread(target=running.stop)
        stopper.start()
        assert read_all(idle) == b""  # an idle connection is closed at once
        gate.open.set()
        answer = read_all(busy)
        stopper.join(WAIT_S)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" in answer
        with pytest.raises(ConnectionError):
            running.connect()


def test_stopping_cuts_what_takes_too_long(gate: Gate) -> None:
    table = table_of(served(FakeModel(1, gate)))
    with serving(table) as running, running.connect() as client:
        client.sendall(infer_bytes(1))
        gate.wait_for_run()
        running.stop(drain_s=0.05)
        with pytest.raises((ConnectionError, EOFError)):
            read_replies(client)
        gate.open.set()
