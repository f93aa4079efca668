"""Which process is meant: a number alone may be another process after a while or a restart."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from functools import cache
from pathlib import Path


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        return ""


def birth(pid: int) -> str | None:
    """What tells a living process from another of the same number; None when it has ended.

    One that has ended but was not yet collected by its parent counts as ended.
    """
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # proc_pid_stat(5): after the name in parentheses come state (3) and, at 22, the start time.
        fields = stat[stat.rindex(b")") + 2 :].split()
        return None if fields[0] in (b"Z", b"X") else f"{_boot()}-{fields[19].decode()}"
    shown = subprocess.run(
        ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return None if not shown or shown.startswith("Z") else shown.partition(" ")[2]


def lives(pid: int, born: str) -> bool:
    """Whether this very process still runs."""
    return birth(pid) == born


def signal_process(pid: int, born: str, number: signal.Signals) -> bool:
    """Send a signal to this very process; False when it has ended."""
    if not lives(pid, born):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def signal_group(group: int, number: signal.Signals) -> bool:
    """Send a signal to all processes of a group; False when none is left."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS refuses for groups of ended processes
        return False
    return True


def told(variable: str, value: str) -> list[int]:
    """Processes started with this in their environment; none where the system doesn't tell."""
    line = f"{variable}={value}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if line in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def how_it_ended(code: int) -> str:
    """The exit code of `subprocess` in words."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
