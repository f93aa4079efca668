"""Report: what a device says it runs. "Deployed" means attested so here.

A report carries no device name: the name comes from the authenticated channel, never from the body.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet.protocol.names import ModelName
from edgefleet.protocol.release import Role

# Bytes. An IoT Core shadow holds 8 KB, and beside the report its summary and the labels (1 KB).
MAX_BYTES = 7 << 10
MAX_TEXT = 300  # characters of a reason or an error
MAX_SHORT_TEXT = 60  # and where the report would be too long

FASTER = "faster here than"
"""How a reason begins for a variant that a device chose by its own figures."""

SUMMARY = ("fleet", "epoch", "number", "state", "running", "runtime")
"""Fields that stand beside the report where a vendor's service can search them."""

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
State = Literal["idle", "working", "active", "rejected", "waiting"]
"""idle: nothing wanted; working: on the way; active: runs what is wanted; rejected: keeps the
previous release because the wanted one failed; waiting: cannot go on until something outside
changes."""

ModelState = Literal[
    "fetched", "verified", "loaded", "warmed", "self-tested", "active", "rejected", "waiting"
]


class SelfTest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Outcome of running the bundle's recorded vectors.

    Attributes:
        passed: whether every output was within its tolerance.
        cases: how many vectors were run; 0 when the bundle has none.
        max_error: largest absolute difference seen, in the output's own unit; None (null on the
            wire) when it was not finite, because an output was NaN or infinite.
    """

    passed: bool
    cases: int
    max_error: float | None = 0.0


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a shadow model's answers compare with those of the active model of its name.

    Attributes:
        compared: answers compared since the release began to serve.
        dropped: requests that it got no copy of, for lack of time or room.
        agreement: share of results whose top class is the same; None where outputs have no classes.
        max_abs_diff: largest absolute difference seen, in the output's own unit; None when it was
            not finite, or the two have other shapes.
    """

    compared: int = 0
    dropped: int = 0
    agreement: float | None = None
    max_abs_diff: float | None = 0.0


class VariantReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A variant that the device may run, and what is known of it there.

    Attributes:
        variant: its name.
        state: ``chosen`` serves; ``measured`` ran beside the one that serves and was not clearly
            faster; ``untried`` was not run; ``failed`` is not tried again.
        p50_us: median time of a run of the recorded inputs, in microseconds.
        p95_us: 95th percentile of the same runs.
        memory_bytes: what the process grew by when it was loaded.
        reason: why it is untried or failed.
    """

    variant: str
    state: Literal["chosen", "measured", "untried", "failed"] = "untried"
    p50_us: float | None = None
    p95_us: float | None = None
    memory_bytes: int | None = None
    reason: str | None = None


class BuildReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An engine that is being built for a model, while the next best provider serves it.

    Attributes:
        provider: what it is built for.
        elapsed_s: seconds since it began, in whole steps of ten.
        progress: share that is done, 0 to 1; None where the builder doesn't tell.
    """

    provider: str
    elapsed_s: int = 0
    progress: float | None = None


class ModelReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model on one device.

    Attributes:
        variant: name of the variant chosen.
        why: why that variant was chosen, in a phrase.
        engine: engine that serves it, such as ``onnxruntime 1.31.1``.
        providers: execution providers read back from the session, the one in use first.
        state: how far the model got.
        reason: why it was rejected or waits.
        inferences: requests answered since the runtime started.
        failures: requests failed since then.
        latency_p50_us: median run time of the last requests, in microseconds.
        shadow: of a shadow model, how its answers compare.
        variants: what the device may run of the bundle, the chosen one first, at most eight; empty
            where there is no choice.
        building: an engine being built for it.
    """

    name: ModelName
    version: str
    bundle: Digest
    role: Role = "active"
    variant: str | None = None
    why: str | None = None
    engine: str | None = None
    providers: tuple[str, ...] = ()
    state: ModelState = "active"
    self_test: SelfTest | None = None
    reason: str | None = None
    inferences: int = 0
    failures: int = 0
    latency_p50_us: float | None = None
    shadow: ShadowReport | None = None
    variants: tuple[VariantReport, ...] = ()
    building: BuildReport | None = None


class AccessReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the device can read its sources and write its prefix.

    Attributes:
        state: ``expired`` waits for renewal and is no failure of a release.
        detail: the last refusal, without credentials.
    """

    state: Literal["ok", "expired", "denied", "unknown"] = "unknown"
    detail: str | None = None


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The runtime's own condition; sizes in bytes.

    Attributes:
        pid: the runtime's process id; unchanged over releases.
        started: when the process started.
        starts: how often the runtime has started on this device.
        bytes_fetched: blob bytes fetched since the process started.
        events_dropped: events given up for lack of room, ever.
        pointer_lag_s: seconds from when the last pointer was issued until the device saw it, by
            the clocks of both sides; None where none came while the process ran.
        sync: what telemetry waits for: a span of the policy, a link that isn't metered, access that
            somebody renews, or the other side; None while it goes.
        synced: when telemetry was last taken while the process ran, by the device's clock.
    """

    pid: int
    started: Timestamp
    starts: int = 1
    rss_bytes: int | None = None
    disk_free_bytes: int | None = None
    store_bytes: int | None = None
    spool_bytes: int | None = None
    bytes_fetched: int = 0
    events_dropped: int = 0
    pointer_lag_s: float | None = None
    sync: Literal["span", "metered", "access", "link"] | None = None
    synced: Timestamp | None = None


class RolledBack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator's order to one device: not to serve a release until a higher pointer comes.

    Attributes:
        release: digest of the release that was taken back.
        by: who ordered it, as they call themselves; whether they may is the channel's affair.
        at: when it came, by the device's clock.
        reason: as they gave it; empty where they gave none.
    """

    release: Digest
    by: str
    at: Timestamp
    reason: str = ""

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return (
            f"was rolled back on this device by {self.by} at {self.at:%Y-%m-%d %H:%M:%S} UTC{why}"
        )


class RevertedRuntime(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version of the runtime that a device tried and went back from; it isn't tried again.

    Attributes:
        runtime: the version.
        reason: why.
    """

    runtime: str
    reason: str


class Report(Document, frozen=True, kw_only=True):
    """What a device runs and how it is.

    Attributes:
        fleet: the fleet it believes it belongs to; None before the first pointer.
        epoch: of the highest pointer taken; 0 before the first.
        number: likewise.
        sequence: rises with every report of a device.
        time: the device's clock.
        state: see `State`.
        wanted: digest of the release that the pointer gives this device.
        running: digest of the release that answers requests now.
        models: of the running release, and of the wanted one where it isn't the one that runs.
        labels: hardware facts, such as ``target: jetson-orin``.
        endpoint: address on which the device itself serves, such as ``http://127.0.0.1:43117``.
        errors: newest first, at most eight.
        runtime: version of the runtime.
        rolled_back: why it doesn't serve what the pointer gives it, where an operator ordered so.
        reverted: the runtime that was offered, where it was tried here and taken back.
    """

    sequence: int
    time: Timestamp
    state: State
    runtime: str
    health: Health
    fleet: str | None = None
    epoch: int = 0
    number: int = 0
    wanted: Digest | None = None
    running: Digest | None = None
    models: tuple[ModelReport, ...] = ()
    access: AccessReport = AccessReport()
    labels: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    endpoint: str | None = None
    errors: tuple[str, ...] = ()
    rolled_back: RolledBack | None = None
    reverted: RevertedRuntime | None = None

    @property
    def pair(self) -> tuple[int, int]:
        """(epoch, number) of the highest pointer taken."""
        return (self.epoch, self.number)

    def attests(self, release: str, *, pair: tuple[int, int] = (0, 0)) -> bool:
        """Whether this report proves that the release with this digest serves on the device.

        Args:
            release: digest of a release.
            pair: the report must have seen at least this pointer.
        """
        return self.running == release and self.state == "active" and self.pair >= pair

    def encoded(self) -> bytes:
        """Canonical bytes, at most `MAX_BYTES`.

        Texts are cut and, where the report is still too long, cut more; then goes what attests
        nothing: why a variant was chosen, engines, self-test figures, latencies; at last models,
        from some 20 on, those that are active before the others, and an error says how many.

        Raises:
            LimitExceededError: too long even so, because of labels or names.
        """
        report = _cut(self, errors=8, characters=MAX_TEXT)
        if len(encode(report)) > MAX_BYTES:
            report = _cut(self, errors=1, characters=MAX_SHORT_TEXT)
        if len(encode(report)) > MAX_BYTES:
            report = msgspec.structs.replace(report, models=tuple(map(_bare, report.models)))
        count = len(report.models)
        while count and len(encode(report)) > MAX_BYTES:
            count -= 1 + count // 8
            report = _shortened(report, self.models, count)
        return encode(report, max_bytes=MAX_BYTES)


def _cut(report: Report, *, errors: int, characters: int) -> Report:
    def cut(text: str | None) -> str | None:
        return text and text[:characters]

    access = msgspec.structs.replace(report.access, detail=cut(report.access.detail))
    order = report.rolled_back
    if order is not None:
        order = msgspec.structs.replace(order, reason=order.reason[:characters])
    reverted = report.reverted
    if reverted is not None:
        reverted = msgspec.structs.replace(reverted, reason=reverted.reason[:characters])
    return msgspec.structs.replace(
        report,
        errors=tuple(error[:characters] for error in report.errors[:errors]),
        access=access,
        rolled_back=order,
        reverted=reverted,
        models=tuple(
            msgspec.structs.replace(
                model,
                reason=cut(model.reason),
                why=cut(model.why),
                variants=tuple(
                    msgspec.structs.replace(variant, reason=cut(variant.reason))
                    for variant in model.variants
                ),
            )
            for model in report.models
        ),
    )


def _shortened(report: Report, models: tuple[ModelReport, ...], count: int) -> Report:
    """The report with ``count`` of the given models, what needs attention first."""
    chosen = sorted(report.models, key=lambda model: model.state == "active")[:count]
    note = f"{len(models) - count} more models run here than a report holds"
    return msgspec.structs.replace(report, models=tuple(chosen), errors=(note,))


def _bare(model: ModelReport) -> ModelReport:
    return msgspec.structs.replace(
        model,
        why=None,
        engine=None,
        self_test=None,
        latency_p50_us=None,
        shadow=None,
        variants=(),
        building=None,
    )


def read_report(data: bytes) -> Report:
    """Decode a report from a device; see `documents.decode` for the errors."""
    return decode(Report, data, max_bytes=MAX_BYTES)
