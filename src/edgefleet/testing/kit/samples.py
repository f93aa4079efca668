"""What the suites are fed with: small bundles, pointers, reports, events. The same on every run."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.event import Alarm, Metric, OutputSummary, Prediction, new_event
from edgefleet.protocol.layout import BundleWriter
from edgefleet.protocol.pointer import Pointer
from edgefleet.protocol.report import AccessReport, Health, ModelReport, Report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.layout import BundleLayout
    from edgefleet.protocol.release import Release

T = TypeVar("T")
Change = Callable[[bytes | None], bytes]

FLEET = "00000000-0000-4000-8000-000000000001"
MOMENT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
UNUSABLE_LABELS: tuple[dict[str, str], ...] = (
    {"": "x"},
    {"a=b": "x"},
    {"a\0": "x"},
    {"a": "two\nlines"},
    {"k" * 64: "x"},
    {"a": "v" * 256},
)
THREADS = 8  # of a race: enough to collide on two cores, few enough for a metered cloud


def noise(size: int, seed: int) -> bytes:
    """So many bytes that compress badly, the same for the same seed."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - content, not a secret


class Content(NamedTuple):
    """Bytes, told in a line. Where pytest compares large ones themselves, it may look for hours."""

    size: int
    digest: str
    begins: bytes

    @classmethod
    def of(cls, data: bytes) -> Content:
        """What `data` holds: its length, its digest and its first 16 bytes."""
        return cls(len(data), digest_of(data), data[:16])


def descriptor_of(data: bytes) -> b.Descriptor:
    """A descriptor of a raw file with that content."""
    return b.Descriptor(media_type=b.WEIGHT_MEDIA_TYPE, digest=digest_of(data), size=len(data))


def bundle(
    folder: Path,
    seed: int = 0,
    *,
    size: int = 20_000,
    metrics: dict[str, float] | None = None,
    lineage: dict[str, str] | None = None,
) -> BundleLayout:
    """A bundle of two variants, fp32 and int8, whose files hold noise: to be carried, not run.

    Args:
        folder: where to make it; named after the seed.
        seed: another seed, another digest.
        size: bytes of the larger file.
        metrics: to carry along.
        lineage: likewise.
    """
    interface = b.Interface(
        inputs=(b.TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(b.TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
    )
    with BundleWriter(folder / f"bundle-{seed}") as writer:
        for precision, share in (("fp32", 1), ("int8", 4)):
            file = folder / f"{seed}-{precision}.onnx"
            file.write_bytes(noise(size // share, seed * 10 + share))
            details = b.Details(
                variant=precision,
                entry="model.onnx",
                interface=interface,
                metrics=metrics or {},
                lineage=lineage or {},
            )
            writer.add_variant(
                details,
                {"model.onnx": file},
                model_name="sample",
                model_format="onnx",
                precision=precision,
                opset=17,
            )
        return writer.finish()


def pointer(number: int, *, current: str = digest_of(b"release"), epoch: int = 0) -> Pointer:
    """A pointer with that number."""
    return Pointer(
        fleet=FLEET,
        epoch=epoch,
        number=number,
        current=current,
        sources=("https://models.example.com/fleet",),
        issued=MOMENT,
    )


def report(
    held: Pointer | None = None,
    release: Release | None = None,
    *,
    sequence: int = 1,
    reason: str | None = None,
    access: AccessReport | None = None,
) -> Report:
    """A report as a device would write it.

    Args:
        held: the pointer it has taken; None for a device that has seen none.
        release: what that pointer gives it, and what it claims to run.
        sequence: of the report.
        reason: it rejected the release for this reason.
        access: what it says of its access; valid by default.
    """
    now = datetime.now(UTC)
    wanted = None if held is None else held.current
    models = tuple(
        ModelReport(
            name=model.name,
            version=model.version,
            bundle=model.bundle,
            variant="fp32",
            engine="sample 1.0",
            providers=("CPUExecutionProvider",),
            state="active" if reason is None else "rejected",
            reason=reason,
        )
        for model in (() if release is None else release.models)
    )
    return Report(
        sequence=sequence,
        time=now,
        state="idle" if held is None else "active" if reason is None else "rejected",
        runtime="0.1.0",
        health=Health(pid=4242, started=now),
        fleet=None if held is None else held.fleet,
        epoch=0 if held is None else held.epoch,
        number=0 if held is None else held.number,
        wanted=wanted,
        running=wanted if reason is None else None,
        models=models,
        access=access or AccessReport(state="ok"),
        labels={"arch": "x86_64"},
    )


def prediction(second: int, *, model: str = "digits") -> Event:
    """A prediction event, so many seconds after `MOMENT`."""
    data = Prediction(
        model=model,
        model_version="1",
        bundle=digest_of(model.encode()),
        variant="fp32",
        outputs=(OutputSummary(name="y", shape=(1, 2), values=(0.25, 0.75), top=(1,)),),
        latency_us=120.0,
    )
    return new_event(data, time=MOMENT + timedelta(seconds=second))


def metric(second: int, value: float) -> Event:
    """A metric event that concerns no model."""
    data = Metric(name="temperature", value=value, unit="Cel")
    return new_event(data, time=MOMENT + timedelta(seconds=second))


def alarm(second: int, *, model: str = "digits") -> Event:
    """An alarm, so many seconds after `MOMENT`."""
    data = Alarm(rule="stuck", message="the belt stands", model=model)
    return new_event(data, time=MOMENT + timedelta(seconds=second))


def at_once(work: Sequence[Callable[[], T]]) -> list[T]:
    """Run all of it at the same moment, one thread each, and give the results in order.

    Raises:
        Exception: what the first of them raised, if any did.
    """
    gate = threading.Barrier(len(work))

    def run(one: Callable[[], T]) -> T:
        gate.wait()
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))
