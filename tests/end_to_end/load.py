"""Requests to a fleet's devices while something else goes on; each is counted, none may fail."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from edgefleet.fleet import Fleet

TIMEOUT_S = 120.0  # for a round of requests over all devices


class Load:
    """Requests to every device, one after the other, for as long as the block runs."""

    def __init__(self, fleet: Fleet, devices: Iterable[str], images: NDArray[Any]) -> None:
        self._fleet, self._devices, self._images = fleet, tuple(devices), images
        self._ending = threading.Event()
        self._rounds = threading.Semaphore(0)
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._ending.is_set():
            for device in self._devices:
                try:
                    answer = self._fleet.device(device).infer("digits", self._images)
                    assert np.shape(answer["label"]) == (len(self._images),)
                except Exception as error:  # noqa: BLE001 - whatever it is: dropped
                    self.failures.append(f"{device}: {error!r}")
                else:
                    self.answered[device] += 1
            self._rounds.release()

    def serve_some_more(self) -> None:
        """Return when each device has been asked once more since now."""
        while self._rounds.acquire(blocking=False):
            continue
        for _ in ("the round under way", "a whole one"):
            assert self._rounds.acquire(timeout=TIMEOUT_S), "requests don't come back"

    def end(self) -> None:
        self._ending.set()


@contextmanager
def under_load(fleet: Fleet, devices: Iterable[str], images: NDArray[Any]) -> Iterator[Load]:
    """Requests go to every device while the block runs."""
    load = Load(fleet, devices, images)
    thread = threading.Thread(target=load.run)
    thread.start()
    try:
        load.serve_some_more()
        yield load
    finally:
        load.end()
        thread.join()
