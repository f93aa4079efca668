"""A device whose disk turns read-only: run as a process with mounts of its own, and a folder.

It writes what the spool logs, and ends well if the device goes on once it may write again.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from device_runtime.tests.spool.rig import Device, alarm, prediction
from edgefleet.errors import IntegrityError
from edgefleet_runtime.spool.store import REOPEN_S


def remount(root: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,bind,{how}", root], check=True)


def main(root: Path, *, damaged: bool) -> None:
    subprocess.run(["mount", "--bind", root, root], check=True)
    device = Device(root)
    device.put(alarm("first"), *(prediction(n) for n in range(20)))
    device.turn(100, finish=True)
    device.store.close()
    remount(root, "ro")  # which can't be done while a file is open for writing
    if damaged:
        device.damaged = True
        device.store.trouble(IntegrityError("as a page that can't be read"))
    else:
        device.open()
    for number in range(10):
        device.put(alarm(str(number)))
        device.turn()
    remount(root, "rw")
    device.turn(REOPEN_S)
    device.turn()
    device.drain()
    device.turn(finish=True)
    device.drain()
    assert device.arrived("alarm") == 11
    assert [repair.lost for repair in device.store.repairs] == [0] * damaged


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    main(Path(sys.argv[1]), damaged=bool(sys.argv[2:]))
