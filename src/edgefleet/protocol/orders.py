"""Orders: what an operator may have one device do now, over whatever carries requests to it.

A request with one of these paths never reaches the device's endpoint, which any process there may
ask: only what comes over the device's own channel is followed. Bodies are the documents below.

- `ROLLBACK` (POST): serve the release before, until a higher pointer comes.
- `CAPTURE` (POST): keep the next requests of a model as samples, whatever the policy's share.
- `STATUS` (GET): the newest report.
- `TRIAL` (POST): measure the variants of a bundle that no release names, beside what serves.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document
from edgefleet.protocol.names import ModelName
from edgefleet.protocol.report import RolledBack, SelfTest

PREFIX = "/edgefleet/"
ROLLBACK = PREFIX + "rollback"
CAPTURE = PREFIX + "capture"
STATUS = PREFIX + "status"
TRIAL = PREFIX + "trial"

MAX_ORDER = 4096  # bytes of an order's body
MAX_COUNT = 1000  # samples of one order
MAX_SECONDS = 3600.0
MAX_ACTOR = 60  # characters
MAX_REASON = 300  # characters, as of other texts in a report
MAX_VARIANTS = 32  # of one trial
MAX_CALLS = 1000  # of one variant
MAX_CALLING_S = 60.0  # of running, a variant
MAX_TRIAL_S = 6 * 3600.0

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Actor = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ACTOR)]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON)]
OrderId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z\-]{8,64}\Z")]


class RollbackOrder(Document, frozen=True, kw_only=True):
    """Serve the release before.

    Attributes:
        by: who orders it, for people.
        reason: why, for people.
    """

    by: Actor = "an operator"
    reason: Reason = ""


class RollbackAnswer(Document, frozen=True, kw_only=True):
    """What became of a rollback.

    Attributes:
        changed: whether this order changed anything; False where the wanted release had been rolled
            back or rejected before.
        epoch: of the pointer that the device holds still.
        number: likewise.
        wanted: digest of the release that this pointer gives the device.
        running: digest of the release that serves now.
        rolled_back: the order that holds; None where the device had rejected the release by itself.
        took_ms: milliseconds from the order's arrival until the release before served.
        remembered: whether it outlives the process; False on a full disk.
    """

    changed: bool
    epoch: int
    number: int
    wanted: Digest
    running: Digest | None = None
    rolled_back: RolledBack | None = None
    took_ms: float = 0.0
    remembered: bool = True


class CaptureOrder(Document, frozen=True, kw_only=True):
    """Keep the next requests of a model.

    Attributes:
        model: name it is served under.
        id: of the order: the same again asks what became of it. A sample's event has this id with a
            full stop and its number, from 0. None has the device make one.
        count: how many requests.
        seconds: when that many didn't come, it ends.
        by: who orders it, for people.
        reason: why, for people.
    """

    model: ModelName
    id: OrderId | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)] = 1
    seconds: Annotated[float, msgspec.Meta(gt=0.0, le=MAX_SECONDS)] = 300.0
    by: Actor = "an operator"
    reason: Reason = ""


class CaptureAnswer(Document, frozen=True, kw_only=True):
    """What became of a capture so far.

    Attributes:
        id: of the order.
        model: as ordered.
        count: as ordered.
        captured: samples that are kept on the device's disk, or delivered.
        dropped: requests for which there was no room.
        ids: of the samples' events.
        open: whether more are waited for.
        until: when it ends at the latest, by the device's clock.
        inputs: whether samples hold inputs; the policy's ``inputs`` names those that may.
    """

    id: OrderId
    model: ModelName
    count: int
    until: Timestamp
    captured: int = 0
    dropped: int = 0
    ids: tuple[str, ...] = ()
    open: bool = False
    inputs: bool = False


class TrialOrder(Document, frozen=True, kw_only=True):
    """Measure the variants of a bundle that lies at the device's sources.

    Attributes:
        id: of the trial. With `bundle`, the same again begins nothing and tells how far it is; None
            has the device make one. Without `bundle`, None means the last one.
        bundle: digest of the bundle; None asks what became of a trial.
        cancel: end the trial; nothing of it is kept.
        variants: names of those to measure, in order; empty for all.
        max_bytes: most that it may fetch, beside the device's own cap; None for no other.
        calls: most calls that are timed, a variant.
        seconds: of running, after which five calls suffice.
        within_s: it ends at the latest after so many seconds.
        by: who orders it, for people.
        reason: why, for people.
    """

    id: OrderId | None = None
    bundle: Digest | None = None
    cancel: bool = False
    variants: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_VARIANTS)] = ()
    max_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    calls: Annotated[int, msgspec.Meta(ge=5, le=MAX_CALLS)] = 200
    seconds: Annotated[float, msgspec.Meta(gt=0.0, le=MAX_CALLING_S)] = 2.0
    within_s: Annotated[float, msgspec.Meta(gt=0.0, le=MAX_TRIAL_S)] = 1800.0
    by: Actor = "an operator"
    reason: Reason = ""


class TrialFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one variant did on a device, in a process of its own.

    Attributes:
        variant: its name.
        outcome: ``measured``; ``failed`` where it doesn't load, run or pass its self-test there;
            ``skipped`` where the device can't or may not try it.
        reason: why it failed or was skipped.
        format: of its files.
        engine: name and version of what ran it.
        providers: execution providers read back from the session, the one in use first.
        calls: how many were timed.
        p50_us: median time of a call with one recorded input, in microseconds.
        p95_us: likewise the 95th percentile.
        p99_us: likewise the 99th.
        memory_bytes: what loading and running it added to its process at the peak; None where the
            system doesn't tell.
        self_test: outcome of the bundle's recorded vectors; None where there are none.
        fetched_bytes: what came over the network for it.
    """

    variant: str
    outcome: Literal["measured", "failed", "skipped"]
    reason: Reason = ""
    format: str = ""
    engine: str = ""
    providers: tuple[str, ...] = ()
    calls: int = 0
    p50_us: float | None = None
    p95_us: float | None = None
    p99_us: float | None = None
    memory_bytes: int | None = None
    self_test: SelfTest | None = None
    fetched_bytes: int = 0


class TrialAnswer(Document, frozen=True, kw_only=True):
    """How far a trial is.

    Attributes:
        id: of the trial.
        bundle: as ordered.
        state: ``waiting`` until the release that serves counts as good; ``working``; ``done``;
            ``failed`` as a whole; ``interrupted`` by the end of the runtime; ``cancelled``.
        reason: why it failed, was interrupted or cancelled.
        variant: the one in hand.
        figures: of the variants that it is done with.
        machine: fingerprint of what figures depend on beside the variant.
        target: the hardware target that the device's labels name.
        runtime: version of the runtime.
    """

    id: OrderId
    bundle: Digest
    state: Literal["waiting", "working", "done", "failed", "interrupted", "cancelled"]
    reason: Reason = ""
    variant: str = ""
    figures: tuple[TrialFigures, ...] = ()
    machine: str = ""
    target: str = ""
    runtime: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state not in {"waiting", "working"}
