"""The releases in memory: the one that runs, the one that can come back, the one on its way.

Rules kept here:

- The table is swapped in one assignment; what left it closes when its last request ends.
- A model that two releases share is loaded once, and closed when neither needs it.
- What runs, what is kept, what is on its way and the last good release are pinned in the store.
  The one before is pinned, too, where it couldn't stay loaded and the settings keep it.
- One variant of the running release may be replaced by another: see `revise`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.errors import (
    EdgeFleetError,
    StorageFullError,
    UnsupportedError,
)
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.faults import point
from edgefleet_runtime.reconciler.acquire import WANTED
from edgefleet_runtime.reconciler.machine import Stage
from edgefleet_runtime.reconciler.room import Fit, fit, together
from edgefleet_runtime.reconciler.slot import Slot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.reconciler.acquire import Acquired, Acquirer, OpenSources
    from edgefleet_runtime.reconciler.machine import Key
    from edgefleet_runtime.reconciler.room import Footprint
    from edgefleet_runtime.reconciler.shadow import OnCompared
    from edgefleet_runtime.reconciler.slot import Unit, Workbench
    from edgefleet_runtime.serve.table import ModelTable
    from edgefleet_runtime.store.blobs import BlobStore

_log = logging.getLogger(__name__)


class Rack:
    """Slots for releases, and the table that the running one fills.

    Args:
        store: where blobs are.
        acquirer: brings releases into the store.
        bench: brings models from the store to readiness.
        table: what answers requests.
        memory_max_bytes: the device's cap of what models take in memory, by estimate.
        engine_cache: folder for engines that are built from models; None to keep none.
        on_serve: called whenever other models answer requests than before.
        on_compared: called with each request that a shadow has answered, too; see `Shadow`.
    """

    def __init__(
        self,
        store: BlobStore,
        acquirer: Acquirer,
        bench: Workbench,
        table: ModelTable,
        *,
        memory_max_bytes: int | None = None,
        engine_cache: Path | None = None,
        on_serve: Callable[[], object] = lambda: None,
        on_compared: OnCompared = lambda *_: None,
    ) -> None:
        self._options = EngineOptions(providers=acquirer.providers, engine_cache=engine_cache)
        self.running: Slot | None = None
        self.kept: Slot | None = None
        self.candidate: Slot | None = None
        self._before: Acquired | None = None
        self._on_serve = on_serve
        self._on_compared = on_compared
        self._store = store
        self._acquirer = acquirer
        self._bench = bench
        self._table = table
        self._store_max_bytes = store.max_bytes
        self._memory_max_bytes = memory_max_bytes

    def restore(self, digest: str) -> None:
        """Load a release from the store alone and serve it.

        Raises:
            UnavailableError: something of it is missing from the store.
            EdgeFleetError: as the steps of `Workbench`. Nothing is left loaded.
        """
        slot = self._acquired(digest, None)
        try:
            for unit in slot.units.values():
                for stage in tuple(Stage)[1:]:
                    self._advance(unit, stage)
        except BaseException:
            slot.close(others=(self.running, self.kept))
            raise
        previous = self.running
        self._serve(slot)
        if previous is not None:
            previous.close(others=(slot, self.candidate))

    def fetch(self, digest: str, sources: OpenSources) -> tuple[tuple[Key, ...], bool]:
        """Make a release the one on its way; see `Acquirer.acquire` for more errors.

        Returns:
            Its models, and whether they fit into memory only when nothing else is loaded.

        Raises:
            UnsupportedError: they don't fit into memory, or not as its settings allow.
        """
        self.discard()
        try:
            self.candidate = self._acquired(digest, sources)
        except StorageFullError as error:
            if error.retryable or (self.kept is None and self._before is None):
                raise
            # The cap is too small for three releases: the one that could come back makes room.
            _log.warning("%s; giving up the previous release", error.message)
            self._unkeep()
            self.candidate = self._acquired(digest, sources)
        return tuple(self.candidate.units), self._alone(self.candidate)

    def _alone(self, slot: Slot) -> bool:
        """Whether a slot must be alone in memory; makes room without harm where that is enough."""
        running, settings = _footprint(self.running), slot.acquired.release.settings
        cap = self._memory_cap(slot.acquired)
        fits = fit(slot.footprint(), running=running, kept=_footprint(self.kept), max_bytes=cap)
        if fits is Fit.WITHOUT_KEPT:
            _log.info("the previous release makes room in memory")
            self._unkeep()
        if fits in {Fit.BESIDE, Fit.WITHOUT_KEPT} or (fits is Fit.ALONE and settings.unload_first):
            return fits is Fit.ALONE
        needed = together((slot.footprint(),))
        beside = "" if fits is Fit.NEVER else f" beside {together((running,))} of what runs"
        raise UnsupportedError(
            f"the release needs an estimated {needed} bytes of memory{beside}, {cap} are allowed",
            cure="deploy smaller variants, or raise memory_max_bytes"
            + ("" if fits is Fit.NEVER else ", or allow unload_first"),
        )

    def _memory_cap(self, acquired: Acquired) -> int | None:
        caps = (acquired.release.settings.memory_max_bytes, self._memory_max_bytes)
        return min((cap for cap in caps if cap), default=None)

    def _unkeep(self) -> None:
        if self.kept is not None:
            self.kept.close(others=(self.running, self.candidate))
        if self.kept is not None or self._before is not None:
            self.kept = self._before = None
            self.pin()

    def hold(self, digest: str | None) -> None:
        """Keep the release that ran before in the store where it isn't loaded, as settings want it.

        Args:
            digest: the release; None for none.
        """
        running = self.running
        if digest is None or running is None or digest == running.digest:
            return
        if not running.acquired.release.settings.keep_previous:
            return
        try:
            self._before = self._acquirer.acquire(digest, None)
        except EdgeFleetError as error:
            _log.warning("the release before is not whole: %s", error.message)
        self.pin()

    def unload(self) -> None:
        """Free all that is loaded; the release that ran stays pinned, to be restored."""
        running = self.running
        self._table.swap({})
        self._unkeep()
        self.running = None
        if running is not None:
            running.close(others=())

    def advance(self, digest: str, model: Key, stage: Stage) -> bool:
        """Bring a model of the release on its way to a stage.

        Returns:
            False when that release is not the one on its way.
        """
        if self.candidate is None or self.candidate.digest != digest:
            return False
        self._advance(self.candidate.units[model], stage)
        return True

    def ready(self, digest: str) -> Slot | None:
        """The slot of a release that is on its way or kept."""
        for slot in (self.candidate, self.kept):
            if slot is not None and slot.digest == digest:
                return slot
        return None

    def swap(self, slot: Slot) -> None:
        """Let a ready slot answer requests, and keep the previous one if its settings say so."""
        previous, kept = self.running, self.kept
        self._serve(slot)
        point("swap.done")
        self.candidate = None if slot is self.candidate else self.candidate
        self.kept = previous if slot.acquired.release.settings.keep_previous else None
        self._before = None
        for old in (previous, kept):
            if old is not None and old not in (slot, self.kept):
                old.close(others=(slot, self.kept))
        self.pin()

    def revised(self, acquired: Acquired, model: Key) -> Slot | None:
        """A slot for the running release with one model anew; all others are the running ones.

        None when both don't fit into memory beside what is loaded.
        """
        running = self.running
        if running is None or running.digest != acquired.digest:
            return None
        slot = self._slot(acquired)
        for key, unit in slot.units.items():
            if key != model and unit.same_as(running.units[key]):
                unit.share(running.units[key])
        loaded = together((running.footprint(), _footprint(self.kept)))
        cap = self._memory_cap(acquired)
        fits = cap is None or loaded + slot.units[model].estimated_bytes <= cap
        return slot if fits else None

    @property
    def memory_left(self) -> int | None:
        """Bytes that the caps leave beside what is loaded, by estimate; None where nothing caps."""
        running = self.running
        cap = self._memory_cap(running.acquired) if running else self._memory_max_bytes
        if not cap:
            return None
        return cap - together((_footprint(running), _footprint(self.kept)))

    @property
    def slots(self) -> tuple[Slot | None, ...]:
        """All slots here."""
        return (self.running, self.kept, self.candidate)

    def plan_build(self, unit: Unit) -> None:
        """Tell whether an engine is to be built for a verified model, in ``build_due``."""
        self._bench.plan_build(unit)

    def prepare(self, unit: Unit, stage: Stage) -> None:
        """Bring the new model of a revised slot to a stage; see `Workbench` for the errors."""
        if stage is Stage.LOADED:
            self._bench.load(unit, others=())
        else:
            self._advance(unit, stage)

    def revise(self, slot: Slot) -> None:
        """Let a revised slot answer requests; the one before stays loaded, see `release`."""
        self._serve(slot)
        self.pin()

    def release(self, slot: Slot) -> None:
        """Free what no slot here serves of a revised one, or of the one that it replaced."""
        slot.close(others=self.slots)

    def go_back(self, good: str | None) -> str | None:
        """Let the release before answer requests again and free the one that does.

        Args:
            good: loaded from the disk where none is kept.

        Returns:
            Digest of what answers now; None when there is nothing to go back to.

        Raises:
            EdgeFleetError: as `restore`; what answers requests stays.
        """
        if self.kept is None or self.running is None:
            if good is not None:
                self._restore_instead(good)
                self._before = None
                self.pin()
            return good
        broken, slot, self.kept = self.running, self.kept, None
        self._before = None
        self._serve(slot)
        broken.close(others=(slot, self.candidate))
        self.pin()
        return slot.digest

    def _restore_instead(self, digest: str) -> None:
        """Restore a release in place of the running one; that one comes back if it can't be."""
        running = self.running
        if running is not None and self._alone(self._acquired(digest, None)):
            self.unload()
        try:
            self.restore(digest)
        except Exception:
            if self.running is None and running is not None:
                self.restore(running.digest)
            raise
        self.pin()

    def discard(self) -> None:
        """Free what is loaded of the release on its way."""
        if self.candidate is not None:
            self.candidate.close(others=(self.running, self.kept))
            self.candidate = None
        self._store.pin(WANTED, ())

    def pin(self, good: str | None = None) -> None:
        """Tell the store what is in use.

        Args:
            good: digest of the last good release, where it isn't one of those here.
        """
        self._store.pin("running", self.running.acquired.blobs() if self.running else ())
        before = self.kept.acquired if self.kept else self._before
        self._store.pin("kept", before.blobs() if before else ())
        if self.candidate is None:
            self._store.pin(WANTED, ())
        if good is None:
            return
        for slot in (self.running, self.kept):
            if slot is not None and slot.digest == good:
                self._store.pin("good", slot.acquired.blobs())
                return
        try:
            self._store.pin("good", self._acquirer.acquire(good, None).blobs())
        except EdgeFleetError as error:
            _log.warning("the last good release is not whole: %s", error.message)

    def _acquired(self, digest: str, sources: OpenSources | None) -> Slot:
        return self._slot(self._acquirer.acquire(digest, sources))

    def _slot(self, acquired: Acquired) -> Slot:
        # Estimates know no second sessions.
        capped = self._memory_cap(acquired) is not None
        return Slot(acquired, replace(self._options, throughput="never" if capped else "measured"))

    def _advance(self, unit: Unit, stage: Stage) -> None:
        match stage:
            case Stage.VERIFIED:
                self._bench.verify(unit)
            case Stage.LOADED:
                self._bench.load(unit, others=(self.running, self.kept))
            case Stage.WARMED:
                self._bench.warm_up(unit)
            case _:
                self._bench.self_test(unit)

    def _serve(self, slot: Slot) -> None:
        if self.running is not None:
            self.running.end_shadows()
        self._table.swap(slot.served())
        self.running = slot
        slot.begin_shadows(self._on_compared)
        self._on_serve()
        cap = slot.acquired.release.settings.store_max_bytes
        self._store.max_bytes = min(cap or self._store_max_bytes, self._store_max_bytes)


def _footprint(slot: Slot | None) -> Footprint:
    return {} if slot is None else slot.footprint()
