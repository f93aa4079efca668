"""Another operator's process: ``python holder.py HOME HOW [DEVICE…]`` enrols devices and runs them.

HOW is ``wait`` (until it is told to end), ``leave`` (end at once, without closing anything) or
``fork`` (wait, after making a child that outlives it until its standard input ends).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

from edgefleet_local.deployer import LocalDeployer


def main() -> None:
    # What runs in a shell's background inherits that nobody heeds it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    home, how, *names = sys.argv[1:]
    deployer = LocalDeployer(Path(home))
    for name in names:
        deployer.enroll(name, group="line-3")
    deployer.run_devices()
    if how == "fork" and os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print("ready", flush=True)  # noqa: T201 - what the test waits for
    if how != "leave":
        end = threading.Event()
        with contextlib.suppress(KeyboardInterrupt):
            while not end.wait(1.0):  # a signal that comes just before an endless wait is lost
                pass


if __name__ == "__main__":
    main()
