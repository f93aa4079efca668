"""A gateway in a process of its own, to be killed: ``python -m … FOLDER`` of a `server_rig.Fleet`.

It says its port, and keeps what devices send in the folder ``taken``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edgefleet.protocol.digest import digest_of_file, hex_of
from providers.gateway.tests.server_rig import Fleet, Receiver


class Keeping(Receiver):
    """Keeps each file beside what came before."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def _receive_file(self, device: str, path: str, file: Path) -> None:
        digest, _ = digest_of_file(file)
        (self._folder / f"{device}-{hex_of(digest)}-{time.time_ns()}").write_bytes(
            file.read_bytes()
        )


def main() -> None:
    """Serve until killed."""
    folder = Path(sys.argv[1])
    fleet = Fleet(folder)
    with fleet.gateway(receiver=Keeping(folder / "taken")) as serving:
        sys.stdout.write(f"{serving.port}\n")
        sys.stdout.flush()
        while True:
            time.sleep(60)


if __name__ == "__main__":
    main()
