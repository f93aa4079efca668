"""The trial that an operator ordered last, on the disk: what was found, and what to clear away."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet.errors import DocumentError
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet.protocol.orders import TrialAnswer, TrialOrder
from edgefleet_runtime.faults import point
from edgefleet_runtime.store.durable import write_durably

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

FILE = "trial.json"


class Kept(Document, frozen=True, kw_only=True):
    """The document.

    Attributes:
        order: as it came.
        answer: how far the trial is.
        before: blobs that were in the store before anything was fetched for the trial: what came
            since then goes. None where nothing of it is there.
    """

    order: TrialOrder
    answer: TrialAnswer
    before: tuple[Digest, ...] | None = None


class TrialFile:
    """The document, in the runtime's folder."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE

    def load(self) -> Kept | None:
        """What was saved last; None where there was no trial, or it can't be read."""
        try:
            return decode(Kept, self._path.read_bytes())
        except FileNotFoundError:
            return None
        except DocumentError as error:
            _log.warning("%s can't be read, the last trial is forgotten: %s", self._path, error)
            return None

    def save(self, kept: Kept) -> None:
        """Make it outlive a power cut.

        Raises:
            StorageFullError: no room; what was saved last stands.
        """
        point("ordered-trial.saving")
        write_durably(self._path, encode(kept))
