"""What several test files here share: waiting, processes of other operators, power cuts."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from edgefleet_local.processes import birth

T = TypeVar("T")
_CUTS = frozenset(
    {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "fcntl.flock"}
)
_MAX_CUTS = 2000


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and wasn't collected doesn't."""
    return birth(pid) is not None


def elsewhere(work: Callable[..., T], *arguments: Any, workers: int = 1) -> list[T]:
    """The results of some work done in so many new processes at once."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return [done.result() for done in [pool.submit(work, *arguments) for _ in range(workers)]]


def cut_at_every_point(
    home: Path,
    prepare: Callable[[Path], object],
    work: Callable[[Path], object],
    check: Callable[[Path], object],
    stride: int = 1,
) -> int:
    """Kill a process before each of its steps on files in turn, and check what is left each time.

    To be called by `elsewhere`, as it forks.

    Args:
        home: a folder; each cut gets one of its own in it.
        prepare: done before, whole.
        work: done in a process that is killed on its way.
        check: asserts that what is left is the old or the new.
        stride: try every so many'th step only.

    Returns:
        At how many points the process was killed.
    """
    for number in range(1, _MAX_CUTS, stride):
        place = home / str(number)
        prepare(place)
        child = os.fork()
        if child == 0:
            _cut_power_at(number)
            work(place)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        check(place)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return number - 1
    raise AssertionError("the work never ends")


def _cut_power_at(number: int) -> None:
    steps = itertools.count(1)

    def step() -> None:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    write, sync = os.write, os.fsync

    def torn_write(handle: int, data: Any) -> int:
        half = len(data) // 2
        write(handle, data[:half])
        step()
        return half + write(handle, data[half:])

    def noted_sync(fd: Any) -> None:
        step()
        sync(fd)

    os.write, os.fsync = torn_write, noted_sync
    sys.addaudithook(lambda event, _: step() if event in _CUTS else None)
