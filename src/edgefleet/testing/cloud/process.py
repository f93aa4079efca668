"""Child processes of a mock cloud's devices: started in groups of their own, ended in time.

What an agent starts may start others, so a signal goes to all of its group. Their output goes to a
file, which outlives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


async def start(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
) -> asyncio.subprocess.Process:
    """A process that runs.

    Args:
        command: program and arguments.
        folder: that it runs in.
        environment: all that it gets.
        log: that its output is added to.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def end(process: asyncio.subprocess.Process, stop_s: float, *, cut: bool = False) -> bool:
    """End a process and its group; no error where it has ended.

    Args:
        process: to end.
        stop_s: from SIGTERM to SIGKILL.
        cut: SIGKILL at once, as when the power goes.

    Returns:
        False when it didn't end when told to, and was killed.
    """
    if process.returncode is not None:
        return True
    send(process, signal.SIGKILL if cut else signal.SIGTERM)
    try:
        async with asyncio.timeout(stop_s):
            await process.wait()
    except TimeoutError:
        send(process, signal.SIGKILL)
        # It may have ended by itself, and this process have slept.
        return await process.wait() != -signal.SIGKILL
    send(process, signal.SIGKILL)  # what it was just starting when the signal came
    return True


def send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal to a process and its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def read_log(path: Path, last: int) -> list[str]:
    """The newest lines of a log; none where there is no log."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-last:]
