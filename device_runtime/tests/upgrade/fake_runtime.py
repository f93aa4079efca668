"""A runtime that does nothing but upgrade itself: ``fake_runtime.py VERSION HOME OWN COMMAND``.

How well it is, the file ``mood`` of its version says: ``well``, ``dies`` at once, ``deaf`` reaches
no fleet, ``idle`` serves nothing. It ends with 0 when it has nothing left to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from edgefleet.protocol.documents import decode
from edgefleet.protocol.event import Event
from edgefleet.protocol.gateway import RuntimeOffer
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.store.folder import FolderSource
from edgefleet_runtime.store.sources import Source
from edgefleet_runtime.upgrade import upgrader
from edgefleet_runtime.upgrade.places import Places
from edgefleet_runtime.upgrade.upgrader import RESTART, Condition, Upgrader


class FolderChannel(Channel):
    """Offers what lies in a folder as ``offer.json``, with blobs beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        raise NotImplementedError

    def offered_runtime(self) -> RuntimeOffer | None:
        path = self.folder / "offer.json"
        return decode(RuntimeOffer, path.read_bytes()) if path.exists() else None

    def addresses(self) -> tuple[str, ...]:
        return (self.folder.as_uri(),)

    def source(self, address: str) -> Source | None:
        return FolderSource(address)

    def pointer(self) -> bytes | None:
        return None

    def access(self) -> AccessReport:
        return AccessReport(state="ok")

    def wait(self, timeout_s: float) -> bool:
        return False

    def wake(self) -> None:
        return

    def send_report(self, report: bytes) -> None:
        return

    def send_hot(self, events: Sequence[Event]) -> None:
        return

    def upload(self, name: str, path: Path) -> None:
        return

    def close(self) -> None:
        return


def main(version: str, home: Path, own: str, command: str) -> int:
    """Run as one of the runtimes of a folder."""
    if command == "--version":
        sys.stdout.write(f"edgefleet-runtime {version}\n")
        return 0
    mood = (home / "versions" / own / "mood").read_text()
    if mood == "dies":
        return 1
    upgrader.LOOK_S = 0.0
    upgrader.SERVES_S = upgrader.REACHES_S = 0.0
    channel = FolderChannel(home / "fleet")
    places = Places(home, own, trial=os.environ.get("EDGEFLEET_TRIAL", ""))
    works = Upgrader(
        places,
        channel,
        device="cam-1",
        condition=lambda: Condition(serves=mood != "idle", reached=mood != "deaf"),
        healthy_after_s=0.0,
    )
    if places.on_trial:
        stays = None
        while stays is None:
            stays = works.prove()
        if not stays:
            return RESTART
    if works.follow():
        return RESTART
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
