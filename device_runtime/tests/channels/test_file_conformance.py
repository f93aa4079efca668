"""The kit's suite of channels over files on a share that is unmounted and mounted again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from edgefleet.protocol.event import Event, read_event
from edgefleet.protocol.files import write_whole
from edgefleet.testing.kit.device_channel import DeviceChannelConformance
from edgefleet_runtime.channels.file import FileChannel


class Share:
    """A share that is mounted: what lies on it is elsewhere while it isn't.

    Attributes:
        mount: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "mnt"
        self._away = folder / "server"
        self._empty = folder / "empty"
        self.mount.mkdir()
        self._empty.mkdir()

    @property
    def pointer(self) -> Path:
        return self.mount / "pointer.json"

    @property
    def outbox(self) -> Path:
        return self.mount / "outbox"

    @property
    def _there(self) -> Path:
        return self._away if self._away.exists() else self.mount

    def publish(self, pointer: bytes) -> None:
        write_whole(self._there / "pointer.json", pointer)

    def report(self) -> bytes | None:
        return self.file("report.json")

    def events(self) -> Sequence[Event]:
        files = self._there.glob("outbox/hot/*.ndjson")
        return [read_event(line) for path in files for line in path.read_bytes().splitlines()]

    def file(self, name: str) -> bytes | None:
        path = self._there / "outbox" / name
        return path.read_bytes() if path.exists() else None

    def cut(self) -> None:
        if not self._away.exists():
            self.mount.rename(self._away)
            self._empty.rename(self.mount)

    def restore(self) -> None:
        if self._away.exists():
            self.mount.rename(self._empty)
            self._away.rename(self.mount)


class TestFileChannel(DeviceChannelConformance):
    @pytest.fixture
    def far_end(self, tmp_path: Path) -> Share:
        return Share(tmp_path)

    @pytest.fixture
    def connect(self, far_end: Share) -> Callable[[], FileChannel]:
        return lambda: FileChannel(far_end.pointer, far_end.outbox, interval_s=0.005)

    @pytest.fixture
    def from_options(self, far_end: Share) -> Callable[[Mapping[str, str]], FileChannel]:
        own = {"pointer": str(far_end.pointer), "outbox": str(far_end.outbox)}
        return lambda more: FileChannel.from_options({**own, **more}, device="cam-07")
