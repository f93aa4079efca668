"""Latency while a device takes a new release, against latency while nothing happens.

A runtime of a fleet (``run``) is asked at a steady pace while its pointer goes back and forth
between two releases of the MLP with different weights. A swap is all of it: fetch (the first time),
verify, load, warm, self-test, swap, report; requests that began between the new pointer and the
report that attests the release are those *during* it. What such short spans are like anyhow, one as
long in each rest between swaps tells; and what it costs on this machine that anybody computes for
as long as a swap does, one in which another process does so.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from benchmarks.serving import load, models
from benchmarks.serving.figures import Figure, Goal
from device_runtime.tests.node.device import Device
from device_runtime.tests.support import Repository, tensor
from edgefleet.protocol import bundle as b
from edgefleet.protocol.layout import BundleLayout
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.testing.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.serving.bench import Bench
    from benchmarks.serving.models import Subject

CLIENTS = 8
PER_S = 2000
SETTLE_S = 1.0  # left out at the start
SWAPS = 6  # a round
APART_S = 0.6  # of rest after each swap, and after what another process computes: the steady part
PERCENTILE = 99
SWAP_CPU_S = 0.01  # processor time of a runtime that nobody asks, for a swap: 8.9 to 9.4 ms of 100
COMPUTE = """
import sys, time
for line in sys.stdin:
    due = time.thread_time() + float(line)
    while time.thread_time() < due:
        sum(range(500))
    print(flush=True)
"""


class Window(NamedTuple):
    """From when to when, in microseconds since 1970."""

    began_us: float
    ended_us: float

    def later(self) -> Window:
        """As long, in the rest that follows."""
        return Window(self.began_us + APART_S / 2 * 1e6, self.ended_us + APART_S / 2 * 1e6)


def swap(bench: Bench) -> list[Figure]:
    """Six swaps a round under load."""
    subjects = [models.mlp(bench.folder, seed=seed) for seed in (0, 1)]
    fleet = Fleet(bench.folder, subjects)
    steady: list[float] = []
    during: list[float] = []
    resting: list[float] = []
    beside: list[float] = []
    sent: list[float] = []
    lost: list[float] = []
    took: list[float] = []
    with fleet.device.start(), neighbour() as other:
        spot = fleet.begin()
        for _ in bench.each_round():
            seen, failed, windows, others = _round(bench, fleet, spot, other)
            steady.append(_p99_us(_taken(seen, [*windows, *others], inside=False)))
            beside.append(_p99_us(_taken(seen, others, inside=True)))
            during.append(_p99_us(_taken(seen, windows, inside=True)))
            resting.append(_p99_us(_taken(seen, [each.later() for each in windows], inside=True)))
            sent.append(len(seen.took_us) + failed)
            lost.append(failed)
            took += [(window.ended_us - window.began_us) / 1e3 for window in windows]
    note = f"a swap takes {np.median(took):.0f} ms; {PER_S} requests/s"
    return [
        Figure("p99 during a swap: against steady", "µs", steady, during, Goal(1.2), note=note),
        Figure("the same of spans as long, without a swap", "µs", steady, resting),
        Figure(
            "the same while another process computes instead",
            "µs",
            steady,
            beside,
            note=f"for {SWAP_CPU_S * 1e3:.0f} ms, as long as a swap does",
        ),
        Figure(f"requests lost in {SWAPS * bench.rounds} swaps", "", sent, lost, Goal(0)),
    ]


class Fleet:
    """A device, and an operator who has published two releases for it."""

    def __init__(self, folder: Path, subjects: Sequence[Subject]) -> None:
        self._repository = Repository(folder / "fleet")
        self.device = Device(folder / "device", self._repository)
        self._releases = [
            (
                self._repository.release(
                    {"mlp": self._published(subject)}, telemetry=TelemetryPolicy()
                ),
                subject,
            )
            for subject in subjects
        ]
        self.turns = itertools.cycle(range(len(subjects)))

    def begin(self) -> load.Spot:
        """Have every release served once, so that blobs are fetched and code is compiled."""
        release, _ = self._releases[0]
        self._repository.point(release)
        endpoint = self.device.active(release).endpoint
        port = urlsplit(endpoint or "").port
        assert port is not None
        spot = load.Spot(port)
        for _ in self._releases:
            self.swap(spot)
        return spot

    def swap(self, spot: load.Spot) -> Window:
        """Have the next release served.

        Raises:
            RuntimeError: the device attests it and answers with something else.
        """
        release, subject = self._releases[next(self.turns)]
        began_us = time.time() * 1e6
        self._repository.point(release)
        eventually(lambda: (report := self.device.report()) is not None and report.attests(release))
        window = Window(began_us, time.time() * 1e6)
        load.check_rest(spot, subject.binary, subject)
        return window

    def _published(self, subject: Subject) -> BundleLayout:
        ((name, array),) = subject.inputs.items()
        vector = b.Vector(
            inputs=(tensor(name, array),), outputs=(tensor(subject.output, subject.due),)
        )
        specs = [
            (b.TensorSpec(name=key, datatype="FP32", shape=(-1, *value.shape[1:])),)
            for key, value in ((name, array), (subject.output, subject.due))
        ]
        about = b.Details(
            variant="fp32",
            entry="model.onnx",
            interface=b.Interface(inputs=specs[0], outputs=specs[1]),
            self_test=(vector,),
        )
        return self._repository.bundle({"model.onnx": subject.path.read_bytes()}, about)


@contextmanager
def neighbour() -> Iterator[subprocess.Popen[str]]:
    """A process that computes for as many seconds as it is told, and then says so."""
    command = [sys.executable, "-c", COMPUTE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def _beside(process: subprocess.Popen[str], like: Window) -> Window:
    """Have the neighbour compute, in a span as long as another."""
    assert process.stdin is not None
    assert process.stdout is not None
    began_us = time.time() * 1e6
    process.stdin.write(f"{SWAP_CPU_S}\n")
    process.stdin.flush()
    process.stdout.readline()
    ended_us = began_us + like.ended_us - like.began_us
    time.sleep(max(0.0, ended_us / 1e6 - time.time()))
    return Window(began_us, ended_us)


def _round(
    bench: Bench, fleet: Fleet, spot: load.Spot, other: subprocess.Popen[str]
) -> tuple[load.Measured, int, list[Window], list[Window]]:
    seconds = SETTLE_S + SWAPS * 3 * APART_S
    asked = models.mlp(bench.folder).binary
    windows = []
    others = []
    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1, initializer=_step_back) as operator:
        answers = pool.submit(
            lambda: load.paced(
                spot, asked, bench.folder, clients=CLIENTS, per_s=PER_S, seconds=seconds
            )
        )
        time.sleep(SETTLE_S)
        for _ in range(SWAPS):
            windows.append(operator.submit(fleet.swap, spot).result())
            time.sleep(APART_S)
            others.append(_beside(other, windows[-1]))
            time.sleep(APART_S)
        seen, failed = answers.result()
    if others[-1].ended_us > max(seen.began_us):
        raise RuntimeError("the load ended before the last swap did")
    return seen, failed, windows, others


def _step_back() -> None:
    """Leave the processor to the device: publishing a release isn't its work."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def _taken(seen: load.Measured, windows: list[Window], *, inside: bool) -> list[int]:
    """Latencies of requests that began within these spans, or at other times after the first."""
    first_us = windows[0].began_us - SETTLE_S / 2 * 1e6
    return [
        took
        for began, took in zip(seen.began_us, seen.took_us, strict=True)
        if first_us <= began
        and inside == any(window.began_us <= began <= window.ended_us for window in windows)
    ]


def _p99_us(taken_us: list[int]) -> float:
    return float(np.percentile(taken_us, PERCENTILE))
