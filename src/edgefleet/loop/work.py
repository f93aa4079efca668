"""What every step of a turn works with, and the files it keeps on this machine.

Files here only spare work: whoever goes on elsewhere gets them back from the registry's blob store.
A trainer on this machine reads the training data where they lie, so they stay until the turn ends.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet.interfaces.pulling import fetch_blob, pull_bundle
from edgefleet.loop import samples
from edgefleet.optimization.cache import default_folder
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import blob_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from edgefleet.fleet import Fleet
    from edgefleet.loop.record import LoopRecord, Turn
    from edgefleet.loop.sources import Sources
    from edgefleet.loop.spec import LoopSpec
    from edgefleet.protocol.layout import BundleLayout

SAMPLES_MEDIA_TYPE = "application/vnd.edgefleet.loop.samples.v1+npz"


class Waiting(Exception):  # noqa: N818 - no error: the turn goes on another time
    """Something outside must happen first.

    Args:
        why: what, for people.
        turn: what was found meanwhile; None for nothing.
    """

    def __init__(self, why: str, turn: Turn | None = None) -> None:
        super().__init__(why)
        self.why, self.turn = why, turn


@dataclass(frozen=True, kw_only=True)
class Work:
    """A turn's surroundings.

    Attributes:
        fleet: whose loop it is.
        spec: what it does.
        sources: where drift and samples come from.
        now: the time.
        record: the loop's state when the step began.
        root: folder for files of all loops.
    """

    fleet: Fleet
    spec: LoopSpec
    sources: Sources
    now: Callable[[], datetime]
    record: LoopRecord
    root: Path

    @cached_property
    def folder(self) -> Path:
        """For files of this turn: another loop, fleet or turn has another."""
        of = f"{self.fleet.profile.base}\n{self.fleet.profile.name}\n{self.spec.name}"
        digest = hashlib.sha256(of.encode()).hexdigest()[:12]
        folder = self.root / f"{self.spec.name}-{digest}" / str(self.record.number)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def held_back(self, turn: Turn) -> samples.Arrays:
        """What active and candidate are compared on; the rest lies in `training_data` then."""
        return samples.divided(self._samples(turn), self.spec.dataset.held_back, self.training_data)

    @property
    def training_data(self) -> Path:
        """The folder that the training script gets."""
        return self.folder / "data"

    def _samples(self, turn: Turn) -> Path:
        """The turn's file of samples, fetched where this machine has lost or damaged it."""
        assert turn.samples is not None  # noqa: S101 - the step before has written it
        descriptor = Descriptor(
            media_type=SAMPLES_MEDIA_TYPE, digest=turn.samples.blob, size=turn.samples.size
        )
        fetch_blob(self.fleet.registry.blobs, descriptor, self.folder, None)
        return self.folder / blob_path(descriptor.digest)

    def bundle(self, digest: str) -> BundleLayout:
        """A bundle by its digest, fetched where this machine lacks it."""
        return pull_bundle(
            self.fleet.registry.blobs, digest, self.folder / f"bundle-{digest[7:23]}"
        )

    def sweep(self, turn: Turn) -> None:
        """Forget the turn's files, and what its training run left here; what can't go stays."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if turn.run:
            with suppress(EdgeFleetError, OSError):
                self.fleet.trainer.forget(turn.run)


def default_root() -> Path:
    """The user's folder for files of loops."""
    cache = default_folder()
    return (
        Path(tempfile.gettempdir()) / "edgefleet-loops"
        if cache is None
        else cache.with_name("loops")
    )
