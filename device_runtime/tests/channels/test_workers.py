"""Threads that work off operators' requests, and end."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.requests import MAX_WAITING, WORKERS, Workers

NAME = "worked-here"


def alive() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith(NAME)]


@pytest.mark.parametrize("waiting", [0, 1, WORKERS + MAX_WAITING])
def test_closed_ones_end_after_what_they_work_on_and_drop_the_rest(waiting: int) -> None:
    go_on, done = threading.Event(), threading.Semaphore(0)

    def work(_: int) -> None:
        done.release()
        go_on.wait(90)

    workers = Workers(work, NAME)
    for number in range(waiting):
        eventually(partial(workers.put, number))
    for _ in range(min(waiting, WORKERS)):
        assert done.acquire(timeout=90)
    workers.close()
    workers.close()
    assert not workers.put(99)
    go_on.set()
    eventually(lambda: not alive(), alive)
    assert not done.acquire(blocking=False)
