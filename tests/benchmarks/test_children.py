from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.serving.children import guarded, started
from edgefleet.testing.waiting import eventually

# Starts another in a session of its own, which SIGTERM to the group doesn't reach, and stays.
STUBBORN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


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


def test_a_program_that_ends_before_it_is_ready_is_told_with_its_last_words() -> None:
    ends = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with pytest.raises(RuntimeError, match="no such model"), started(ends):
        pass
