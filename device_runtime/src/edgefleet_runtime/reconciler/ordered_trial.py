"""Trials that an operator orders: variants of a bundle that no release names, measured here.

Rules kept here:

- One trial at a time; the same order again begins nothing and tells how far it is.
- What serves goes first: a trial waits until the release that serves counts as good, makes room at
  once for a new release or a rollback, and begins the variant in hand anew when that is done.
- What is in the store already stays; what was fetched for a variant goes when it is done with, and
  after a power cut at the next start. What a release needs never goes.
- A variant is run in a process of its own, see `tryout`. Only what fits beside what is loaded is.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec.structs import replace

from edgefleet.errors import (
    CancelledError,
    ConfigurationError,
    ConflictError,
    InvalidModelError,
    LimitExceededError,
    NotFoundError,
    StorageFullError,
    UnknownFeatureError,
    UnsupportedError,
)
from edgefleet.protocol.bundle import details_descriptor
from edgefleet.protocol.orders import MAX_REASON, MAX_VARIANTS, TrialAnswer, TrialFigures
from edgefleet.protocol.release import ReleaseModel
from edgefleet.protocol.target import Choice
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.footprint import spare_bytes
from edgefleet_runtime.faults import point
from edgefleet_runtime.reconciler.ledger import said
from edgefleet_runtime.reconciler.slot import Unit
from edgefleet_runtime.reconciler.trial_file import Kept
from edgefleet_runtime.reconciler.tryout import Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from edgefleet.protocol.bundle import Variant
    from edgefleet.protocol.orders import TrialOrder
    from edgefleet_runtime.reconciler.acquire import Acquirer, OpenSources, Part
    from edgefleet_runtime.reconciler.slot import Workbench
    from edgefleet_runtime.reconciler.trial_file import TrialFile
    from edgefleet_runtime.store.blobs import BlobStore
    from edgefleet_runtime.store.fetch import Fetcher

_log = logging.getLogger(__name__)

PINS = "ordered trial"
"""Owner of the pins on what a trial has in hand."""
CURE = "order it again"
_SKIPPED = (
    ConfigurationError,  # no engine, or not its library
    UnsupportedError,
    UnknownFeatureError,
    LimitExceededError,
    StorageFullError,
)


class Trying(Protocol):
    """A measurement under way, as `tryout.Tryout` is one."""

    def figures(self) -> TrialFigures | None:
        """What came of it; None while it goes on."""

    def stop(self) -> None:
        """End it."""


class Means(NamedTuple):
    """What trials work with.

    Attributes:
        store: where blobs lie.
        fetcher: counts what came.
        acquirer: brings variants.
        bench: checks them and lays them out.
        engine_for: finds the engine for a format, or says why there is none.
        memory_left: bytes that the caps leave beside what is loaded; None where nothing caps.
        start: begins a measurement.
        max_bytes: the device's own cap of what one trial fetches; None for none.
    """

    store: BlobStore
    fetcher: Fetcher
    acquirer: Acquirer
    bench: Workbench
    engine_for: Callable[[str], object]
    memory_left: Callable[[], int | None]
    start: Callable[[Request], Trying]
    max_bytes: int | None = None


class OrderedTrials:
    """The last trial. Any thread may call `take`; all else is the reconciler's.

    Args:
        means: what it works with.
        file: where it is kept.
        about: an answer that says what every one says of this device.
        clock: monotonic seconds.
        wake: makes the reconciler look.
        refusal: why this device takes no trials; empty where it does.
    """

    def __init__(
        self,
        means: Means,
        file: TrialFile,
        *,
        about: TrialAnswer,
        clock: Callable[[], float],
        wake: Callable[[], object],
        refusal: str = "",
    ) -> None:
        self._means = means
        self._file = file
        self._about = about
        self._clock = clock
        self._wake = wake
        self._refusal = refusal
        self._changing = threading.Lock()
        self._kept: Kept | None = None
        self._deadline = 0.0
        self._alarm: threading.Timer | None = None
        self._cancelled = ""
        self._left: deque[Variant] | None = None
        """Variants to try; None before the bundle's index was read."""
        self._trying: Trying | None = None
        self._fetched = self._seen = 0
        """Bytes that came for the variant in hand; the fetcher's figure at the last look."""

    # --------------------------------------------------------------------------------- any thread

    def take(self, order: TrialOrder, *, enrolled: bool) -> TrialAnswer:
        """Begin a trial, end one, or tell how far it is.

        Args:
            order: what is asked for.
            enrolled: whether this device has a pointer, and so sources to fetch from.

        Raises:
            NotFoundError: no such trial is remembered.
            ConflictError: the device has no sources.
            LimitExceededError: another trial goes on.
            UnsupportedError: models here run elsewhere.
        """
        with self._changing:
            kept = self._kept
            known = kept is not None and order.id in (
                (kept.answer.id,) if order.bundle else (None, kept.answer.id)
            )
            if kept is not None and known:
                if order.cancel and not kept.answer.over:
                    self._cancelled = f"by {order.by}"
                    self._wake()
                return kept.answer
            if order.bundle is None or order.cancel:
                msg = f"no trial {order.id or ''} is remembered here".replace("  ", " ")
                raise NotFoundError(msg, cure=CURE)
            return self._begun(order, order.bundle, kept, enrolled=enrolled)

    def _begun(
        self, order: TrialOrder, bundle: str, kept: Kept | None, *, enrolled: bool
    ) -> TrialAnswer:
        if self._refusal:
            raise UnsupportedError(self._refusal)
        if kept is not None and not kept.answer.over:
            raise LimitExceededError(
                f"trial {kept.answer.id}, ordered by {kept.order.by}, goes on",
                cure="wait for its end, or cancel it",
            )
        if not enrolled:
            raise ConflictError(
                "no pointer has come to this device yet, so it has no sources to fetch from",
                cure="deploy something to its group first",
            )
        order = replace(order, id=order.id or uuid.uuid4().hex)
        answer = replace(self._about, id=order.id or "", bundle=bundle)
        begun = Kept(order=order, answer=answer)
        self._file.save(begun)
        self._kept, self._left, self._cancelled, self._fetched = begun, None, "", 0
        self._deadline = self._clock() + order.within_s
        self._alarm = threading.Timer(order.within_s, self._wake)  # breaks a fetch off
        self._alarm.daemon = True
        self._alarm.start()
        self._wake()
        return answer

    # -------------------------------------------------------------------------------- reconciler's

    @property
    def open(self) -> bool:
        """Whether a trial waits or goes on."""
        kept = self._kept
        return kept is not None and not kept.answer.over

    def restore(self) -> None:
        """Take up what the last process left: a trial that it didn't end was interrupted."""
        self._kept = kept = self._file.load()
        if kept is None:
            return
        if not kept.answer.over:
            self._end("interrupted", "the runtime ended while it went on")
        elif kept.before is not None:
            self._clear()

    def step(self, sources: OpenSources) -> bool:
        """Do the next thing for a trial; False when there is none now.

        Raises:
            CancelledError: something changed outside; what was begun goes on with the next call.
        """
        kept = self._kept
        if kept is None or kept.answer.over:
            return False
        if self._cancelled:
            self._end("cancelled", self._cancelled)
        elif self._clock() >= self._deadline:
            self._end("failed", f"it was not done within {kept.order.within_s:g} seconds")
        elif self._trying is not None:
            return self._looked(self._trying)
        else:
            self._go_on(kept, sources)
        return True

    def _go_on(self, kept: Kept, sources: OpenSources) -> None:
        try:
            if self._left is None:
                self._open(kept, sources)
            elif self._left:
                self._try(kept, self._left[0], sources)
            else:
                self._end("done", "")
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a trial must not take down what serves
            _log.info("trial %s failed", kept.answer.id, exc_info=True)
            self._end("failed", said(error))

    def suspend(self) -> None:
        """Make room for what goes first: end what runs, and drop what was fetched."""
        if not self.open:
            return
        self._stop()
        self._clear()
        self._change(state="waiting", variant="")

    def close(self) -> None:
        """The process ends in order."""
        if self.open:
            self._end("interrupted", "the runtime was stopped")

    # -------------------------------------------------------------------------------------- trying

    def _open(self, kept: Kept, sources: OpenSources) -> None:
        self._seen = self._means.fetcher.bytes_fetched
        if self._allowed(kept) == 0:
            raise LimitExceededError("this trial may fetch 0 bytes: see --trial-bytes")
        self._begin_to_fetch(kept)
        offered = self._means.acquirer.variants(_model(kept.answer.bundle), sources)
        found = {variant.name: variant for variant in offered}
        names = kept.order.variants or tuple(found)
        unknown = [name for name in names if name not in found]
        if unknown:
            raise NotFoundError(f"the bundle has no variant {unknown[0]}")
        if len(names) > MAX_VARIANTS:
            raise LimitExceededError(f"one trial has at most {MAX_VARIANTS} variants")
        done = {figures.variant for figures in kept.answer.figures}
        self._left = deque(found[name] for name in names if name not in done)

    def _begin_to_fetch(self, kept: Kept) -> None:
        """Note what is in the store before anything is fetched."""
        if kept.before is None:
            store = self._means.store
            before = tuple(sorted(store.have() | store.begun()))
            self._save(replace(kept, before=before, answer=replace(kept.answer, state="working")))
        self._means.store.pin(PINS, {kept.answer.bundle})
        point("ordered-trial.noted")

    def _try(self, kept: Kept, variant: Variant, sources: OpenSources) -> None:
        """Begin to measure a variant, or note why it isn't."""
        self._begin_to_fetch(kept)
        if kept.answer.variant != variant.name:
            self._change(variant=variant.name)
        self._seen = self._means.fetcher.bytes_fetched
        try:
            self._means.engine_for(variant.format)
            unit = self._brought(kept, variant, sources)
        except _SKIPPED as error:
            self._done(variant, "skipped", said(error))
        except InvalidModelError as error:
            self._done(variant, "failed", said(error))
        else:
            self._trying = self._means.start(self._request(kept, unit))
            point("ordered-trial.begun")
        finally:
            self._count()

    def _brought(self, kept: Kept, variant: Variant, sources: OpenSources) -> Unit:
        """A variant on the disk, checked.

        Raises:
            LimitExceededError: it costs more bytes or memory than it may.
        """
        means, bundle = self._means, kept.answer.bundle
        allowed = self._allowed(kept)
        if allowed is not None and variant.manifest.digest not in means.store:
            _check(variant.manifest.size, allowed, "bytes to fetch")
        means.store.pin(PINS, {bundle, variant.manifest.digest})
        choice = Choice(variant=variant, why="on trial")
        part = means.acquirer.part(_model(bundle), choice, sources)
        means.store.pin(PINS, part.blobs())
        allowed = self._allowed(kept)
        if allowed is not None:
            _check(means.acquirer.missing_bytes(part), allowed, "bytes to fetch")
        unit = Unit(part, EngineOptions(providers=means.acquirer.providers))
        for room in (means.memory_left(), spare_bytes()):
            if room is not None:
                _check(unit.estimated_bytes, max(0, room), "bytes of memory, by estimate")
        means.acquirer.complete(part, sources)
        point("ordered-trial.fetched")
        means.bench.verify(unit)
        return unit

    def _allowed(self, kept: Kept) -> int | None:
        """Bytes that the trial may still fetch."""
        caps = [c for c in (kept.order.max_bytes, self._means.max_bytes) if c is not None]
        if not caps:
            return None
        spent = sum(figures.fetched_bytes for figures in kept.answer.figures)
        return max(0, min(caps) - spent - self._count())

    def _count(self) -> int:
        """Bytes that came for the variant in hand, the documents before the first included."""
        seen = self._means.fetcher.bytes_fetched
        self._fetched += seen - self._seen
        self._seen = seen
        return self._fetched

    def _request(self, kept: Kept, unit: Unit) -> Request:
        part: Part = unit.part
        about = details_descriptor(part.manifest)
        return Request(
            variant=part.variant.name,
            format=part.variant.format,
            entry=str(unit.entry),
            details=str(self._means.store.path_of(about.digest)),
            providers=unit.options.providers,
            calls=kept.order.calls,
            seconds=kept.order.seconds,
        )

    def _looked(self, trying: Trying) -> bool:
        found = trying.figures()
        if found is None:
            return False
        self._trying = None
        self._note(found)
        return True

    def _done(self, variant: Variant, outcome: Literal["failed", "skipped"], reason: str) -> None:
        self._note(
            TrialFigures(
                variant=variant.name,
                format=variant.format,
                outcome=outcome,
                reason=reason[:MAX_REASON],
            )
        )

    def _note(self, found: TrialFigures) -> None:
        """Keep a variant's figures, and let go of what was fetched for it."""
        kept = self._kept
        if kept is None or not self._left:
            return
        self._left.popleft()
        found, self._fetched = replace(found, fetched_bytes=self._count()), 0
        self._change(variant="", figures=(*kept.answer.figures, found))
        self._means.store.pin(PINS, {kept.answer.bundle})
        self._means.store.clear(kept.before or ())
        point("ordered-trial.variant-cleared")

    # -------------------------------------------------------------------------------------- ending

    def _end(self, state: Literal["done", "failed", "interrupted", "cancelled"], why: str) -> None:
        self._stop()
        self._clear()
        self._change(state=state, reason=why[:MAX_REASON], variant="")

    def _stop(self) -> None:
        trying, self._trying = self._trying, None
        if trying is not None:
            trying.stop()

    def _clear(self) -> None:
        """Drop all that was fetched."""
        self._means.store.pin(PINS, ())
        kept = self._kept
        if kept is None or kept.before is None:
            return
        self._means.store.clear(kept.before)
        point("ordered-trial.cleared")
        self._save(replace(kept, before=None))

    def _change(self, **changes: Any) -> None:  # noqa: ANN401 - fields of the answer
        kept = self._kept
        if kept is not None:
            self._save(replace(kept, answer=replace(kept.answer, **changes)))

    def _save(self, kept: Kept) -> None:
        """Keep it, in memory at least: a full disk must not stop what serves."""
        with self._changing:
            self._kept = kept
            if kept.answer.over and self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            try:
                self._file.save(kept)
            except OSError as error:
                _log.warning("cannot save how far a trial is: %s", error)


def _check(needed: int, room: int, what: str) -> None:
    if needed > room:
        raise LimitExceededError(f"it needs {needed} {what}, {room} are allowed")


def _model(bundle: str) -> ReleaseModel:
    return ReleaseModel(name="trial", version="1", bundle=bundle)
