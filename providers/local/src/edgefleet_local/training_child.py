"""``python -m edgefleet_local.training_child FOLDER LOCK``: runs one training script.

A process of its own, so that a run outlives the notebook that began it. It starts the script in a
process group of its own, pumps its output into a capped log, ends it when it takes too long or
somebody cancels it, and sweeps up whatever the script left running.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgefleet_local import runs
from edgefleet_local.capped_log import CappedLog
from edgefleet_local.processes import birth, how_it_ended, signal_group

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
_CHUNK = 64 << 10
_PUMP_S = 5.0  # for what a script printed last; nobody who could print more is left


def main() -> None:
    """Run the script of the folder named on the command line."""
    folder = Path(sys.argv[1])
    os.set_inheritable(int(sys.argv[2]), False)  # the lock: this process's, not the script's
    run = _Run(folder)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, run.told_to_end)
    try:
        run.go()
    except Exception as error:  # noqa: BLE001 - whatever it is, the run's record must tell
        run.finish("failed", f"{type(error).__name__}: {error}")


class _Run:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._job = runs.read_json(folder / runs.JOB) or {}
        self._ears, self._mouth = os.pipe()

    def told_to_end(self, *_: object) -> None:
        """Signal handler: only wakes the main thread, which looks who asked."""
        os.write(self._mouth, b"c")

    def go(self) -> None:
        if (self._folder / runs.CANCEL).exists():
            self.finish("cancelled", None)
            return
        _adopt_orphans()
        (self._folder / runs.UNFINISHED).mkdir()
        with (self._folder / runs.LOG).open("ab", buffering=0) as log:
            script = self._start()
            pump = threading.Thread(
                target=_pump, args=(script, CappedLog(log.fileno())), daemon=True
            )
            pump.start()
            why = self._wait(script)
            _sweep(script)
            pump.join(timeout=_PUMP_S)
        self._conclude(why, script.returncode)

    def _start(self) -> subprocess.Popen[bytes]:
        path = Path(self._job["script"])
        script = subprocess.Popen(
            [sys.executable, str(path)],
            cwd=path.parent,
            env=_environment(self._job, self._folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            # No other thread runs yet, so running code between fork and exec is safe.
            preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509
        )
        runs.write_status(
            self._folder,
            state="running",
            started=_now(),
            pid=os.getpid(),
            group=script.pid,
            born=birth(script.pid),
        )
        threading.Thread(target=self._tell_end, args=(script,), daemon=True).start()
        return script

    def _tell_end(self, script: subprocess.Popen[bytes]) -> None:
        script.wait()
        os.write(self._mouth, b"e")

    def _wait(self, script: subprocess.Popen[bytes]) -> str | None:
        """Wait for the script's end; why it was made to end, or None when it ended by itself."""
        limit = self._job.get("max_runtime_s")
        deadline = None if limit is None else time.monotonic() + limit
        while True:
            # A request that came before the signal handlers stood is seen here.
            if (self._folder / runs.CANCEL).exists():
                return self._end(script, "cancelled")
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            heard, _, _ = select.select([self._ears], [], [], left)
            if not heard:
                return self._end(
                    script, f"ran longer than max_runtime_s = {limit:g} s and was ended"
                )
            if os.read(self._ears, 1) == b"e":
                return None
            if not (self._folder / runs.CANCEL).exists():
                return self._end(script, "the machine or somebody ended the run's process")

    def _end(self, script: subprocess.Popen[bytes], why: str) -> str:
        """End the script's group, politely first."""
        signal_group(script.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            script.wait(self._job["grace_s"])
        return why

    def _conclude(self, why: str | None, code: int) -> None:
        if why == "cancelled":
            self.finish("cancelled", None)
        elif why is not None:
            self.finish("failed", why)
        elif code != 0:
            self.finish("failed", f"the script ended with {how_it_ended(code)}")
        else:
            (self._folder / runs.UNFINISHED).rename(self._folder / runs.OUTPUTS)
            self.finish("succeeded", None)

    def finish(self, state: str, reason: str | None) -> None:
        runs.write_status(self._folder, state=state, reason=reason, ended=_now())


def _pump(script: subprocess.Popen[bytes], log: CappedLog) -> None:
    """Keep what the script prints, until nobody is left who could print more."""
    if script.stdout is not None:
        while data := os.read(script.stdout.fileno(), _CHUNK):
            log.write(data)


def _sweep(script: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the script: its group, and those that left it and became ours."""
    signal_group(script.pid, signal.SIGKILL)
    script.wait()
    for _ in range(100):  # each round may orphan more to us
        left = _children()
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _environment(job: dict[str, Any], folder: Path) -> dict[str, str]:
    """This environment and what the script is told; see `edgefleet.interfaces.trainer`."""
    told = {
        **os.environ,
        "EDGEFLEET_PARAMS": job["params"],
        "EDGEFLEET_OUTPUT_DIR": str(folder / runs.UNFINISHED),
        "PYTHONUNBUFFERED": "1",
    }
    told.pop("EDGEFLEET_DATA_DIR", None)
    if job["data"] is not None:
        told["EDGEFLEET_DATA_DIR"] = job["data"]
    return told


def _end_with(parent: int) -> Any:  # noqa: ANN401 - for Popen
    """What a script does before it starts: have the kernel end it when this process is killed."""
    prctl = _prctl()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _adopt_orphans() -> None:
    """Have processes that lose their parent become our children, so that none gets away."""
    _prctl()(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl() -> Any:  # noqa: ANN401 - a C function
    if sys.platform != "linux":
        return lambda *_: 0
    return ctypes.CDLL(None).prctl


def _children() -> list[int]:
    """This process's children; none where the system doesn't tell (proc_tid_children(5))."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text(encoding="ascii").split())
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat()


if __name__ == "__main__":
    main()
