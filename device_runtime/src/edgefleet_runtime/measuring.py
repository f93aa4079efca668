"""Measures a model on this machine, and says what to set.

Rules kept here:

- A figure is what one setting did in a fixed time, after a warm-up that isn't counted.
- Advice is a pure function of figures, and needs a gain worth a setting: `WORTH`.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface
    from edgefleet_runtime.engines.base import LoadedModel

WORTH = 1.1  # times as good, for advice to leave the simpler setting
MIN_RUNS = 5
WARM_UP_RUNS = 3


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What one setting did.

    Attributes:
        threads: of one run; 0 is the engine's own choice.
        callers: how many ran the model at the same time.
        batch: items in one run.
        runs: how many were measured.
        p50_us: median time of a run.
        p99_us: 99th percentile.
        items_per_s: items through all callers in a second.
    """

    threads: int
    callers: int
    batch: int
    runs: int
    p50_us: float
    p99_us: float
    items_per_s: float


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What to set, from figures.

    Attributes:
        threads: for ``--threads``.
        batch: how many items together pay; 1 when batching doesn't.
        lines: the reasons, for people.
    """

    threads: int
    batch: int
    lines: tuple[str, ...]


def thread_counts(cores: int) -> tuple[int, ...]:
    """The thread counts worth trying: powers of two, and all cores."""
    counts = {1, cores}
    counts.update(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)
    return tuple(sorted(counts))


def can_batch(interface: Interface) -> bool:
    """Whether every tensor's first length is free, so that several items go together."""
    tensors = (*interface.inputs, *interface.outputs)
    return bool(interface.inputs) and all(spec.shape[:1] == (-1,) for spec in tensors)


def measure(
    model: LoadedModel,
    inputs: Mapping[str, NDArray[Any]],
    *,
    threads: int,
    callers: int = 1,
    batch: int = 1,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Figure:
    """Run a model for a while.

    Args:
        model: opened with ``threads``.
        inputs: of every run.
        threads: for the figure.
        callers: threads that run it at the same time.
        batch: items that ``inputs`` hold.
        seconds: to measure for; at least `MIN_RUNS` runs a caller are done.
        clock: seconds.

    Raises:
        EdgeFleetError: a run failed.
    """
    for _ in range(WARM_UP_RUNS):
        model.infer(inputs)

    def work(until: float) -> list[float]:
        times: list[float] = []
        now = clock()
        while now < until or len(times) < MIN_RUNS:
            model.infer(inputs)
            before, now = now, clock()
            times.append(now - before)
        return times

    start = clock()
    if callers == 1:
        times = work(start + seconds)
    else:
        with ThreadPoolExecutor(callers) as pool:
            each = pool.map(work, [start + seconds] * callers)
            times = [duration for found in each for duration in found]
    took = clock() - start
    ordered = sorted(times)
    return Figure(
        threads=threads,
        callers=callers,
        batch=batch,
        runs=len(ordered),
        p50_us=ordered[len(ordered) // 2] * 1e6,
        p99_us=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e6,
        items_per_s=len(ordered) * batch / took,
    )


def advise(figures: Iterable[Figure]) -> Advice:
    """What to set, given figures of one model on one machine.

    Raises:
        InvalidInputError: there are no figures with one item and one caller.
    """
    known = tuple(figures)
    single = sorted((f for f in known if f.batch == 1 and f.callers == 1), key=lambda f: f.threads)
    if not single:
        raise InvalidInputError("no figures with one item and one caller")
    quickest = single[0]
    for figure in single[1:]:
        if quickest.p50_us > figure.p50_us * WORTH:
            quickest = figure
    first = f"--threads {quickest.threads}: a request takes {quickest.p50_us:.0f} µs (p50)"
    lines = [f"{first}, {quickest.p99_us:.0f} µs (p99)"]
    own = [f for f in known if f.callers == 1 and f.threads == quickest.threads]
    best = min(own, key=lambda f: f.batch)
    for figure in sorted(own, key=lambda f: f.batch):
        if figure.items_per_s > best.items_per_s * WORTH:
            best = figure
    if best.batch > 1:
        gain = best.items_per_s / quickest.items_per_s
        lines.append(
            f"batches pay: {best.batch} together give {gain:.1f} times the throughput, and take "
            f"{best.p50_us:.0f} µs"
        )
    elif any(f.batch > 1 for f in own):
        lines.append("batches don't pay on this machine")
    crowd = max(known, key=lambda f: f.items_per_s)
    if crowd.callers > 1 and crowd.items_per_s > best.items_per_s * WORTH:
        lines.append(
            f"for throughput alone, --threads {crowd.threads}: {crowd.callers} requests at a time "
            f"give {crowd.items_per_s:.0f} a second"
        )
    return Advice(threads=quickest.threads, batch=best.batch, lines=tuple(lines))
