"""What watching costs: serving's 99th percentile with drift and capture on, and the memory added.

    python benchmarks/capture.py [--rounds 24] [--rate 50] [--round-robin] [--json OUT]

*Latency*: one server in a process of its own; one client asks it over loopback at a fixed rate, as
sensors and cameras do. Rounds alternate between a policy without drift and captures and one with
both, in one process and on one connection, so that whatever else the machine does meets both alike.
Predictions are recorded all the while. With ``--round-robin`` server and client run at a real-time
priority (as root), which keeps other programs of a busy machine out of the figures. *Memory*: what
the same process grows by from one policy to the other, with every queue full: the watch's thread
stands still and the disk is full. Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.serving.models import Request, Subject, mlp, squeezenet
from device_runtime.tests.support import MemoryChannel
from edgefleet.errors import StorageFullError, UnavailableError
from edgefleet.protocol.policy import CaptureRule, DriftPolicy, TelemetryPolicy
from edgefleet.protocol.release import Release
from edgefleet_runtime.allocator import share_heap
from edgefleet_runtime.device_watch import DeviceWatch
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.node import SWITCH_S
from edgefleet_runtime.report.host import rss_bytes
from edgefleet_runtime.serve.loop import run as run_loop
from edgefleet_runtime.serve.server import Server
from edgefleet_runtime.serve.table import ModelTable, ServedModel
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.watch.actions.settings import ActionSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_runtime.serve.capture import Capture

GOAL_GROWTH = 0.05
GOAL_BYTES = 40 << 20
OFF = TelemetryPolicy()
ON = TelemetryPolicy(
    drift=DriftPolicy(),
    captures=(
        CaptureRule(name="some", every=50, inputs=True, per_hour=100_000),
        CaptureRule(name="around", alarm="never", before=16, after=4, inputs=True),
    ),
    inputs=("*/*",),
)
MODELS = ("squeezenet", "mlp")
POLICIES = {"off": OFF, "on": ON}


class Paired(NamedTuple):
    """Latencies in microseconds without and with the watch, a list a round."""

    off: list[list[float]]
    on: list[list[float]]

    def growth(self, share: float) -> float:
        """By how much that quantile grew, over all rounds."""
        off, on = (float(np.quantile(np.concatenate(side), share)) for side in self)
        return on / off - 1

    def interval(self, share: float) -> tuple[float, float]:
        """Where that growth lies in nine of ten drawings of as many rounds (a bootstrap)."""
        draw = np.random.default_rng(1)
        growths = []
        for _ in range(1000):
            rounds = draw.integers(len(self.off), size=len(self.off))
            drawn = Paired([self.off[i] for i in rounds], [self.on[i] for i in rounds])
            growths.append(drawn.growth(share))
        return float(np.quantile(growths, 0.05)), float(np.quantile(growths, 0.95))


class Device:
    """A served model, its spool and its watch."""

    def __init__(self, root: Path, subject: Subject) -> None:
        model = OnnxRuntimeEngine().load(subject.path, EngineOptions(threads=1))
        self.table = ModelTable()
        served = ServedModel(model, name=subject.name, version="1", bundle="b", variant="v")
        self.table.swap({subject.name: served})
        channel = MemoryChannel()
        channel.fails = UnavailableError("offline")
        self.spool = Spool(root, channel, device="d", max_bytes=1 << 30)
        self.watch = DeviceWatch(self.table, self.spool, lambda: (), root, ActionSettings())
        self.table.observers.append(self.spool.intake.observe)

    def follow(self, name: str) -> None:
        """Go by a policy."""
        release = Release(models=(), telemetry=POLICIES[name])
        self.spool.follow(release)
        self.watch.watch.follow(release)


def serve(folder: Path, name: str) -> None:
    """The server's process: prints its port, follows the policy that each line names."""
    device = Device(folder / name, _subject(folder, name))

    async def main() -> None:
        server = Server(device.table)
        await server.start()
        device.spool.start()
        device.watch.watch.start()
        print(server.endpoint.rpartition(":")[2], flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            device.follow(line.strip())
            print("ok", flush=True)
        await server.stop(1.0)

    sys.setswitchinterval(SWITCH_S)
    run_loop(main())
    device.watch.stop(60.0)
    print(json.dumps({"skipped": device.watch.watch.skipped}), flush=True)
    device.spool.stop(60.0)


def _subject(folder: Path, name: str) -> Subject:
    return squeezenet() if name == "squeezenet" else mlp(folder)


def latency(folder: Path, name: str, *, rounds: int, rate: float) -> tuple[Paired, int]:
    """Latencies of both, and how many requests the watch didn't look at."""
    subject = _subject(folder, name)
    request = subject.binary
    command = [sys.executable, str(Path(__file__)), "--serve", name, "--folder", str(folder)]
    found = Paired([], [])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(process.stdout.readline()))
        try:
            for number in range(-2, rounds):  # the first ones warm up
                # Half of the rounds begin with each, so that a drift of the machine favours none.
                order = ("off", "on") if number % 2 else ("on", "off")
                for policy in order:
                    process.stdin.write(f"{policy}\n")
                    process.stdin.flush()
                    process.stdout.readline()
                    times = list(_asked(connection, request, rate))
                    if number >= 0:
                        (found.on if policy == "on" else found.off).append(times)
        finally:
            connection.close()
            process.stdin.close()
        return found, int(json.loads(process.stdout.readline())["skipped"])


def _asked(
    connection: http.client.HTTPConnection, request: Request, rate: float, count: int = 100
) -> Iterator[float]:
    """Microseconds of each answer, at a fixed rate."""
    start = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, start + number / rate - time.perf_counter()))
        began = time.perf_counter()
        connection.request("POST", request.path, request.body, request.headers)
        with connection.getresponse() as reply:
            reply.read()
        yield (time.perf_counter() - began) * 1e6


def memory(folder: Path, name: str) -> None:
    """The process that is weighed: prints bytes before and after."""
    share_heap()
    subject = _subject(folder, name)
    device = Device(folder / f"memory-{name}", subject)
    served = next(iter(device.table))
    device.follow("off")
    device.watch.watch.work()
    for _ in range(20):
        served.infer(subject.inputs)
    before = rss_bytes() or 0
    device.follow("on")
    full = _FullDisk(device)
    # A window with 64 features and images, then everything that can wait does.
    for _ in range(200):
        served.infer(subject.inputs)
        device.watch.watch.work()
    for _ in range(20_000 if name == "mlp" else 400):
        served.infer(subject.inputs)
    after = rss_bytes() or 0
    print(json.dumps({"added": after - before, "lost": device.watch.tap.take(0)[1]}), flush=True)
    full.end()


class _FullDisk:
    """Lets samples wait until it ends, as a disk would that takes nothing more."""

    def __init__(self, device: Device) -> None:
        self._ended = threading.Event()
        device.watch.keeper.recorder = self

    def record(self, capture: Capture, done: Callable[[bool], None], /) -> None:
        """Wait, and then refuse."""
        del capture, done
        self._ended.wait()
        raise StorageFullError("no room")

    def end(self) -> None:
        """Let go."""
        self._ended.set()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--round-robin", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--weigh", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.folder, arguments.serve)
        return 0
    if arguments.weigh:
        memory(arguments.folder, arguments.weigh)
        return 0
    if arguments.round_robin:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))  # the server's process inherits
    missed = False
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edgefleet-capture-") as name:
        folder = Path(name)
        print(f"{'model':<12}{'p50 off':>9}{'p50 on':>9}{'p99 off':>9}{'p99 on':>9}{'p99':>8}")
        for model in arguments.models:
            found, skipped = latency(folder, model, rounds=arguments.rounds, rate=arguments.rate)
            cells = [
                float(np.quantile(np.concatenate(side), share))
                for share in (0.5, 0.99)
                for side in found
            ]
            growth = found.growth(0.99)
            paired = statistics.median(
                float(np.quantile(on, 0.5) / np.quantile(off, 0.5) - 1)
                for off, on in zip(found.off, found.on, strict=True)
            )
            figures[model] = {"p99_growth": growth, "p50_growth_of_rounds": paired, "us": cells}
            print(f"{model:<12}" + "".join(f"{cell:>9.0f}" for cell in cells) + f"{growth:>+8.1%}")
            low, high = found.interval(0.99)
            print(f"  p99 in nine of ten drawings: {low:+.1%} to {high:+.1%}")
            print(f"  median of a round's p50: {paired:+.1%}; {skipped} not looked at", flush=True)
            missed |= model == "squeezenet" and growth > GOAL_GROWTH
        for model in arguments.models:
            weighed = subprocess.run(
                [sys.executable, str(Path(__file__)), "--weigh", model, "--folder", name],
                check=True,
                capture_output=True,
                text=True,
            )
            added = figures[model]["added_bytes"] = json.loads(weighed.stdout)["added"]
            print(f"{model}: {added / (1 << 20):.1f} MiB more with every queue full (goal ≤ 40)")
            missed |= added > GOAL_BYTES
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
