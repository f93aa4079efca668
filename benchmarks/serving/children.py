"""Child processes that end when what started them does, however that ends.

Each is told by the end of its standard input, which the kernel brings about even when the harness
is killed. A program that doesn't listen to that is put behind ``python -m
benchmarks.serving.children COMMAND …``, which does and ends the program with all its children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>: orphans below this process become its children
END_S = 15.0  # to end by itself once standard input has ended
ROOT = Path(__file__).resolve().parents[2]


class Child(NamedTuple):
    """A child that runs, with the line that it printed when it was ready."""

    pid: int
    said: str


@contextmanager
def started(
    command: Sequence[str],
    *,
    says: bool = True,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Run a command until the block ends.

    Args:
        command: ends when its standard input does.
        says: whether it prints a line when it is ready, which is waited for.
        log: takes everything else that it prints; gone with the block without a place of its own.
        environment: variables beside the harness's own.

    Raises:
        RuntimeError: it ended before it was ready.
    """
    with ExitStack() as stack:
        if log is None:
            log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ef")), "log")
        told = stack.enter_context(log.open("ab"))
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if says else told,
            stderr=told,
            text=True,
            cwd=ROOT,
            env={**_own_environment(), **(environment or {})},
            start_new_session=True,  # Ctrl-C reaches the harness alone, which then ends the rest
        )
        stack.callback(_end, process)
        said = process.stdout.readline() if process.stdout is not None else ""
        if says and not said:
            ended = process.wait(END_S)
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} ended with {ended}:\n{tail}")
        yield Child(process.pid, said.strip())


def _own_environment() -> dict[str, str]:
    # Where modules aren't kept compiled, each start compiles them: nobody's users do that.
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        end_group(process)
    if process.stdout is not None:
        process.stdout.close()


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads a session, and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def guarded(command: Sequence[str]) -> list[str]:
    """The command behind a guard that ends it when standard input does."""
    return [sys.executable, "-m", "benchmarks.serving.children", *command]


def guard(command: Sequence[str]) -> int:
    """Run a command until it ends or standard input does; returns its exit code.

    What it started and left behind is ended too, on Linux even if that began a session of its own.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, start_new_session=True)

    def watch() -> None:
        sys.stdin.read()
        process.terminate()
        try:
            process.wait(END_S / 3)
        except subprocess.TimeoutExpired:
            end_group(process)

    threading.Thread(target=watch, daemon=True).start()
    ended = process.wait()
    end_group(process)
    while left := children_of(os.getpid()):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return ended


def children_of(pid: int) -> list[int]:
    """Processes whose parent is this one now (Linux; elsewhere none)."""
    # Not by /proc/PID/task/*/children: a thread that ends meanwhile takes its list with it.
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:  # proc_pid_stat(5): after the name in parentheses come state and parent
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid:
            found.append(int(stat.parent.name))
    return found


def below(pid: int) -> list[int]:
    """Those, and theirs, and so on."""
    return [one for child in children_of(pid) for one in (child, *below(child))]


if __name__ == "__main__":
    # Not sys.exit: a thread may still read standard input, and would hold the interpreter up.
    os._exit(guard(sys.argv[1:]) & 0xFF)
