"""What the reconciler keeps of what it did: the memory on the disk, errors, and news for people."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.event import HealthEvent
from edgefleet_runtime.reconciler import memory as mem

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

ERRORS_KEPT = 8


class Ledger:
    """Memory, errors and news of one process.

    Args:
        file: where the memory lies.
        on_event: called with what a person may want to know at once.
    """

    def __init__(self, file: mem.MemoryFile, on_event: Callable[[HealthEvent], object]) -> None:
        self.memory = mem.Memory()
        self.errors: tuple[str, ...] = ()
        """Newest first."""
        self.saved = True
        """Whether the memory is on the disk as it is."""
        self._file = file
        self._on_event = on_event

    def start(self) -> None:
        """Take up what the last process left."""
        self.remember(mem.started(self._file.load()))

    def save(self, memory: mem.Memory) -> None:
        """Save what must outlive a power cut before anything is done.

        Raises:
            StorageFullError: no room; the memory is as it was.
        """
        self._file.save(memory)
        self.memory, self.saved = memory, True

    def remember(self, memory: mem.Memory) -> None:
        """Save what may get lost without harm: a full disk must not stop what serves."""
        self.memory, self.saved = memory, False
        try:
            self._file.save(memory)
            self.saved = True
        except OSError as error:
            self.note(f"cannot save the runtime's state: {said(error)}")

    def note(self, error: str) -> None:
        """Keep an error for the report; the same one again only comes to the front."""
        _log.warning("%s", error)
        self.errors = (error, *(known for known in self.errors if known != error))[:ERRORS_KEPT]

    def tell(self, what: str, message: str) -> None:
        """Tell people at once."""
        self._on_event(HealthEvent(what=what, message=message))


def said(error: Exception) -> str:
    """An error in a sentence."""
    return (
        error.message if isinstance(error, EdgeFleetError) else f"{type(error).__name__}: {error}"
    )
