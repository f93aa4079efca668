"""Stopping a server: what has begun is finished, and nothing waits for ever."""

from __future__ import annotations

import asyncio
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
from edgefleet_runtime.serve.http import HttpService
from edgefleet_runtime.serve.messages import Limits

if TYPE_CHECKING:
    from device_runtime.tests.serving import Gate
    from edgefleet_runtime.serve.messages import Request, Response


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


def test_who_gives_draining_up_is_heard_though_the_last_connection_leaves_just_then() -> None:
    async def give_up() -> None:
        service = HttpService(unanswered, Limits())
        last = service.connection()
        service.add(last)
        draining = asyncio.create_task(service.drain(WAIT_S))
        await asyncio.sleep(0)  # until it waits
        service.discard(last)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        await service.drain(0)

    asyncio.run(give_up())


def unanswered(request: Request) -> Response:
    raise AssertionError(f"nobody asks for {request}")
