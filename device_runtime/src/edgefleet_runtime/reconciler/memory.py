"""What the runtime remembers over restarts and power cuts: one small document, written durably.

The rules of starting are here too, as pure functions: a release that brought the process down too
often is given up for the last good one.

- ``trial`` is set before anything of a new release is loaded, because loading may kill the process,
  and cleared when the release has served for a while, or was rejected.
- A start that finds a trial and no orderly stop counts one crash. At `MAX_CRASHES` the release is
  condemned: not tried again until a newer pointer comes, even over restarts. So is one that broke
  its budget on trial, and one that an operator ordered back.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
from msgspec.structs import replace

from edgefleet.errors import DocumentError
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet.protocol.pointer import Pointer
from edgefleet.protocol.report import RolledBack
from edgefleet_runtime.faults import point
from edgefleet_runtime.store.durable import write_durably

_log = logging.getLogger(__name__)

FILE = "state.json"
MAX_CRASHES = 3


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """A release that has not served for long enough to be called good."""

    release: Digest
    crashes: int = 0


class Condemned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A release that must not be tried again, and the pointer of that time.

    Attributes:
        reason: it brought the process down, broke its budget, or was ordered back.
        order: the operator's, where it was.
    """

    release: Digest
    epoch: int
    number: int
    reason: str
    order: RolledBack | None = None


class Memory(Document, frozen=True, kw_only=True):
    """The document.

    Attributes:
        pointer: the highest one taken.
        running: release that answered requests last.
        good: the last release that served for a while.
        previous: release that ran before the one that runs, unless it was taken back.
        trial: see above.
        condemned: see above.
        starts: how often the runtime has started here.
        stopped: whether the last process ended in order.
    """

    pointer: Pointer | None = None
    running: Digest | None = None
    good: Digest | None = None
    previous: Digest | None = None
    trial: Trial | None = None
    condemned: Condemned | None = None
    starts: int = 0
    stopped: bool = False


def started(before: Memory) -> Memory:
    """The memory of a process that starts now, given what the last one left."""
    memory = replace(before, starts=before.starts + 1, stopped=False)
    if before.trial is None or before.stopped:
        return memory
    trial = replace(before.trial, crashes=before.trial.crashes + 1)
    if trial.crashes < MAX_CRASHES:
        return replace(memory, trial=trial)
    reason = f"the runtime ended {trial.crashes} times while it tried this release"
    condemned = _condemned(before, trial.release, reason)
    running = before.good if before.running == trial.release else before.running
    return replace(memory, running=running, trial=None, condemned=condemned)


def tried(memory: Memory, release: str) -> Memory:
    """The memory before anything of a release is loaded."""
    if release == memory.good or (memory.trial is not None and memory.trial.release == release):
        return memory
    return replace(memory, trial=Trial(release=release))


def swapped(memory: Memory, release: str) -> Memory:
    """The memory when a release starts to answer requests."""
    if release != memory.running:
        memory = replace(memory, previous=memory.running)
    if release == memory.good:
        return replace(memory, running=release, trial=None)
    return replace(tried(memory, release), running=release)


def given_up(memory: Memory, release: str, *, order: RolledBack | None = None) -> Memory:
    """The memory after a release was rejected before it served; for good where it was ordered."""
    if order is not None:
        memory = replace(memory, condemned=_condemned(memory, release, str(order), order))
    if memory.trial is None or memory.trial.release != release:
        return memory
    return replace(memory, trial=None)


def went_back(
    memory: Memory, release: str, to: str, reason: str, *, order: RolledBack | None = None
) -> Memory:
    """The memory after a release was taken back while it served."""
    condemned = _condemned(memory, release, reason, order)
    good = to if memory.good in {None, release} else memory.good
    return replace(memory, running=to, good=good, previous=None, trial=None, condemned=condemned)


def before(memory: Memory, release: str) -> str | None:
    """The release to go back to from the one that runs: a good one, or else the last one."""
    known = (memory.good, memory.previous)
    return next((digest for digest in known if digest not in {None, release}), None)


def _condemned(
    memory: Memory, release: str, reason: str, order: RolledBack | None = None
) -> Condemned:
    epoch, number = (0, 0) if memory.pointer is None else memory.pointer.pair
    return Condemned(release=release, epoch=epoch, number=number, reason=reason, order=order)


def proven(memory: Memory) -> Memory:
    """The memory after the running release has served for a while."""
    return replace(memory, good=memory.running, trial=None)


def taken(memory: Memory, pointer: Pointer) -> Memory:
    """The memory after a newer pointer came; what was condemned gets another chance."""
    return replace(memory, pointer=pointer, condemned=None)


class MemoryFile:
    """The document on the disk, in the runtime's folder."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE
        self._saved: bytes | None = None

    def load(self) -> Memory:
        """What was saved last; a fresh memory when there is none or it can't be read.

        An unreadable file is kept aside for people. The blobs are still there, and the channel
        still has the pointer: what is lost is the memory of pointers refused.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Memory()
        try:
            return decode(Memory, data)
        except DocumentError as error:
            aside = self._path.with_suffix(".unreadable")
            self._path.replace(aside)
            _log.error("%s: %s; kept as %s", self._path, error.message, aside.name)
            return Memory()

    def save(self, memory: Memory) -> None:
        """Make the memory outlive a power cut; does nothing when it is what was saved last.

        Raises:
            StorageFullError: no room; what was saved last stands.
        """
        data = encode(memory)
        if data != self._saved:
            point("state.saving")
            write_durably(self._path, data)
            self._saved = data
