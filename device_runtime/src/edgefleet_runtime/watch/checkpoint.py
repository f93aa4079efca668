"""What sketching keeps on the disk, so that a window outlives the process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet_runtime.store.durable import write_durably

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

FILE = "sketches"
MAX_BYTES = 64 << 20


class SavedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A window as it lies on the disk; attributes as of `window.SketchingWindow`."""

    id: str
    model: str
    version: str
    bundle: str
    variant: str
    start: float
    end: float
    requests: int
    sketches: dict[str, Any]


class Carried(msgspec.Struct, kw_only=True):
    """What a model's earlier windows saw too little of to be judged.

    Attributes:
        bundle: that they belong to.
        since: start of the first.
        sketches: by feature.
    """

    bundle: str
    since: float
    sketches: dict[str, Any]


class Checkpoint(msgspec.Struct, kw_only=True):
    """All of it.

    Attributes:
        open: windows that go on.
        closed: windows that wait to be judged.
        carried: by model.
        moved: features that have moved, by model.
        bundles: that served last, by model.
        unkept: events that nobody has kept yet, as they are sent.
    """

    open: list[SavedWindow] = []
    closed: list[SavedWindow] = []
    carried: dict[str, Carried] = {}
    moved: dict[str, tuple[str, ...]] = {}
    bundles: dict[str, str] = {}
    unkept: list[bytes] = []


class CheckpointFile:
    """The file of a `Checkpoint`; a damaged one is set aside.

    Args:
        root: its folder; made when the first is written.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / FILE

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self._path.exists()

    def load(self) -> tuple[Checkpoint, bool]:
        """What was written last, and whether it was whole; empty where nothing was, or not."""
        try:
            if self._path.stat().st_size <= MAX_BYTES:
                return msgspec.msgpack.decode(self._path.read_bytes(), type=Checkpoint), True
        except FileNotFoundError:
            return Checkpoint(), True
        except (msgspec.MsgspecError, OSError) as error:
            _log.warning("%s can't be read: %s", self._path, error)
        self.set_aside()
        return Checkpoint(), False

    def set_aside(self) -> None:
        """Keep the file for people to look at, out of the way."""
        try:
            self._path.replace(self._path.with_suffix(".unreadable"))
        except OSError as error:
            _log.warning("%s can't be set aside: %s", self._path, error)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it durably.

        Raises:
            StorageFullError: no room; the one before stands.
            OSError: the disk failed otherwise.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self._path, msgspec.msgpack.encode(checkpoint))
