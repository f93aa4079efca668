"""A process that sends what a spool holds, killed at one point after the other.

``python -m tests.end_to_end.spool_cuts SPOOL WORK``: for each n, a copy of SPOOL is sent into
``WORK/n/devices/cam-07`` by a process that dies at the n-th point it passes, and then by one that
doesn't. Ends with the first n that is beyond the last point, and prints how often it killed.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from functools import partial
from pathlib import Path

from edgefleet_runtime import faults
from edgefleet_runtime.channels.file import FileChannel
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.sync.lane import in_thread
from edgefleet_runtime.sync.sync import Sync

MAX_BYTES = 8 << 20


def send(root: Path, outbox: Path) -> None:
    """Send all there is, as a device does that stops."""
    spool = Spool(
        root,
        FileChannel(root / "pointer.json", outbox),
        device="cam-07",
        max_bytes=MAX_BYTES,
        syncing=partial(Sync, start=in_thread),
    )
    spool.recover()
    while spool.pending:
        spool.finish()
    spool.close()


def forked(root: Path, outbox: Path, fault: str) -> bool:
    """Whether a process survived that died at a point, if it came there."""
    child = os.fork()
    if not child:
        os.environ[faults.VARIABLE] = fault
        importlib.reload(faults)
        try:
            send(root, outbox)
        except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
            sys.excepthook(*sys.exc_info())
            os._exit(2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -9}, code
    return code == 0


def main() -> None:
    """See above."""
    filled, work = map(Path, sys.argv[1:])
    kills, survived = 0, False
    while not survived:
        here = work / str(kills + 1)
        root, outbox = here / "spool", here / "devices" / "cam-07"
        shutil.copytree(filled, root)
        survived = forked(root, outbox, f"*:{kills + 1}")
        kills += not survived
        assert forked(root, outbox, "")
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    main()
