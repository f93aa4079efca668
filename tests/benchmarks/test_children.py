from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.serving.children import children_of, guarded, started
from edgefleet.testing.waiting import eventually
from edgefleet_local.processes import birth

# Starts another in a session of its own, which SIGTERM to the group doesn't reach, and stays.
STUBBORN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def is_gone(pid: int) -> bool:
    return birth(pid) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a guard the orphans below it")
def test_what_a_guarded_program_started_ends_with_it() -> None:
    with started(guarded([sys.executable, "-c", STUBBORN])) as child:
        pids = [int(word) for word in child.said.split()]
        assert not any(map(is_gone, pids))
    eventually(lambda: all(map(is_gone, pids)))


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_it_ends_too_when_whoever_started_the_guard_is_killed() -> None:
    with subprocess.Popen(
        guarded([sys.executable, "-c", STUBBORN]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as guard:
        assert guard.stdout is not None
        assert guard.stdin is not None
        pids = [int(word) for word in guard.stdout.readline().split()]
        guard.stdin.close()  # as the kernel does for a process that was killed
        assert guard.wait(60) != 0
    assert all(map(is_gone, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="as above")
def test_a_child_is_found_while_threads_come_and_go() -> None:
    enough = threading.Event()

    def churn() -> None:
        while not enough.is_set():
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()

    with (
        started([sys.executable, "-c", "print('here', flush=True); input()"]) as child,
        ThreadPoolExecutor(3) as threads,
    ):
        try:
            for _ in range(3):
                threads.submit(churn)
            assert all(child.pid in children_of(os.getpid()) for _ in range(100))
        finally:
            enough.set()


def test_a_program_that_ends_before_it_is_ready_is_told_with_its_last_words() -> None:
    ends = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with pytest.raises(RuntimeError, match="no such model"), started(ends):
        pass
