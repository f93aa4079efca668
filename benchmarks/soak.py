"""Good load mixed with bad clients for minutes: memory must stay flat and latency steady.

    python benchmarks/soak.py [--minutes 10] [--json OUT]

Slow, oversized, half, garbage, resetting and deaf clients, compression bombs, and floods, cut
connections and streams given up over gRPC, go against one server while others ask it without a
pause, over REST and gRPC. After a warm-up of a fifth of the time, medians of the first third of
what is left are held against those of the last: what the server allocated may not have grown by
2 %, nor the good clients' p50 over each protocol by 50 % (two cores run both sides). Latencies are
only judged where other work took less than a tenth of the machine, which is told. Not one good
answer may be wrong or lost, and connections, files and threads must be back where they were before
the bad clients came.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.soaking import callers, clients
from benchmarks.soaking.callers import BadCaller, GoodCaller
from benchmarks.soaking.clients import BadClient, GoodClient, failures_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from benchmarks.soaking.clients import Address

    Bad = list[BadClient | BadCaller]

FOLDER = Path(__file__).resolve().parent
GOOD_CLIENTS = 3
GOOD_CALLERS = 1
GOOD = GOOD_CLIENTS + GOOD_CALLERS  # connections that stay
WARM_UP = 0.2  # share of the time
MEMORY_WITHIN = 0.02
P50_WITHIN = 0.5
OTHERS_WITHIN = 0.1  # share of the machine that other work may take where latencies are judged
POOLED = 2 * (os.cpu_count() or 1)  # threads that REST and gRPC start when a run first takes long
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # a second, in /proc
SETTLE_S = 120.0  # for the server to let go of what bad clients left


class Footprint(NamedTuple):
    """What the server holds.

    Attributes:
        own_kb: memory that it allocated: what other processes map of the same files doesn't count.
        pss_kb: that, and its part of what it shares.
        files: open descriptors, connections among them.
    """

    own_kb: int
    pss_kb: int
    files: int
    threads: int


class Spent(NamedTuple):
    """Processor time in seconds: what went by, what was used, and what the soak used of it."""

    all_s: float
    used_s: float
    ours_s: float

    def others(self, before: Spent) -> float:
        """The share that others have used since."""
        used = self.used_s - before.used_s - (self.ours_s - before.ours_s)
        return max(0.0, used) / max(self.all_s - before.all_s, 1 / TICKS)


class Sample(NamedTuple):
    """One moment of the soak: memory as of `Footprint`, latencies of REST and of gRPC.

    Attributes:
        others: share of the machine that neither the server nor its clients took since the last.
    """

    others: float
    own_kb: int
    pss_kb: int
    p50_ms: float
    p99_ms: float
    call_p50_ms: float
    call_p99_ms: float


class Findings(NamedTuple):
    """What a soak found."""

    samples: list[Sample]
    before: Footprint
    after: Footprint
    rounds: dict[str, int]
    failures: Counter[str]


class Soaked:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], rest: Address, calls: Address) -> None:
        self.process = process
        self.rest = rest
        self.calls = calls

    def footprint(self) -> Footprint:
        """What it holds now."""
        proc = Path("/proc", str(self.process.pid))
        lines = (proc / "smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split()[0]: int(line.split()[1]) for line in lines}
        return Footprint(
            sizes["Anonymous:"],
            sizes["Pss:"],
            len([*(proc / "fd").iterdir()]),
            len([*(proc / "task").iterdir()]),
        )

    def spent(self) -> Spent:
        """Time of all cores so far."""
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]  # and waiting for a disk
        server = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        mine = os.times()
        ours_s = mine.user + mine.system + sum(map(int, server[11:13])) / TICKS
        return Spent(sum(ticks) / TICKS, (sum(ticks) - idle) / TICKS, ours_s)

    def settled(self, before: Footprint) -> Footprint:
        """What it holds once that is no more than is due after a soak, or after `SETTLE_S`."""
        deadline = time.monotonic() + SETTLE_S
        tick = threading.Event()
        now = self.footprint()
        while now.files > before.files - GOOD or now.threads > before.threads + POOLED:
            if time.monotonic() > deadline:
                break
            tick.wait(0.1)
            now = self.footprint()
        return now


@contextmanager
def server(timeout_s: float) -> Iterator[Soaked]:
    """A server of ``x`` FP32[n] to ``y`` = x + 1, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="edgefleet-soak-") as folder:
        model = Path(folder, "plus.onnx")
        _write_model(model)
        command = [
            sys.executable,
            str(FOLDER / "soaking" / "server.py"),
            str(model),
            str(timeout_s),
        ]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin
            assert process.stdout
            host, port, call_host, call_port = process.stdout.readline().split()
            yield Soaked(process, (host, int(port)), (call_host, int(call_port)))
            assert process.poll() is None, "the server ended"
            process.stdin.close()


def soak(
    soaked: Soaked,
    *,
    goes_on: Callable[[Bad], bool],
    every_s: float,
) -> Findings:
    """Load the server as long as ``goes_on`` says, asked each ``every_s``."""
    stop = threading.Event()
    good = [GoodClient(soaked.rest, stop, number) for number in range(GOOD_CLIENTS)]
    calling = [GoodCaller(soaked.calls, stop, number) for number in range(GOOD_CALLERS)]
    for friend in (*good, *calling):
        friend.start()
    bad: Bad = []
    samples: list[Sample] = []
    try:
        stop.wait(every_s)  # the server's threads and buffers come with its first requests
        before = soaked.footprint()
        bad += [BadClient(kind, soaked.rest, stop) for kind in clients.KINDS]
        bad += [BadCaller(kind, soaked.calls, stop) for kind in callers.KINDS]
        for rogue in bad:
            rogue.start()
        spent = soaked.spent()
        while goes_on(bad):
            stop.wait(every_s)
            over_rest = sorted(s * 1000 for client in good for s in client.taken())
            called = sorted(s * 1000 for client in calling for s in client.taken())
            if over_rest and called:
                now, since, spent = soaked.footprint(), spent, soaked.spent()
                samples.append(
                    Sample(
                        spent.others(since),
                        now.own_kb,
                        now.pss_kb,
                        statistics.median(over_rest),
                        over_rest[len(over_rest) * 99 // 100],
                        statistics.median(called),
                        called[len(called) * 99 // 100],
                    )
                )
    finally:
        stop.set()
        for thread in (*good, *calling, *bad):
            thread.join()
    after = soaked.settled(before)
    rounds = {client.name: client.rounds for client in bad}
    return Findings(samples, before, after, rounds, failures_of([*good, *calling, *bad]))


def judged(found: Findings) -> list[str]:
    """What is wrong with what was found; nothing, if all is well."""
    wrong = [f"{count} x {what}" for what, count in found.failures.items()]
    if found.after.files > found.before.files - GOOD:
        wrong.append(f"files: {found.before.files} before, {found.after.files} after")
    if found.after.threads > found.before.threads + POOLED:
        wrong.append(f"threads: {found.before.threads} before, {found.after.threads} after")
    wrong += [f"no {kind} client was ended" for kind, count in found.rounds.items() if not count]
    return wrong


def drifted(samples: list[Sample]) -> list[str]:
    """Which of memory and latency did not hold; printed as well."""
    steady = samples[int(len(samples) * WARM_UP) :]
    third = max(1, len(steady) // 3)
    first_load, last_load = (
        statistics.median(sample.others for sample in part)
        for part in (steady[:third], steady[-third:])
    )
    print(f"  other work took  {first_load:10.0%} -> {last_load:10.0%}  of the machine")
    alone = max(first_load, last_load) < OTHERS_WITHIN
    if not alone:
        print("  latencies are not judged: too much of it")
    p50_within = P50_WITHIN if alone else None
    wrong = []
    for name, of, within in (
        ("memory kB", lambda sample: sample.own_kb, MEMORY_WITHIN),
        ("PSS kB", lambda sample: sample.pss_kb, None),
        ("p50 ms", lambda sample: sample.p50_ms, p50_within),
        ("p99 ms", lambda sample: sample.p99_ms, None),
        ("gRPC p50 ms", lambda sample: sample.call_p50_ms, p50_within),
        ("gRPC p99 ms", lambda sample: sample.call_p99_ms, None),
    ):
        first = statistics.median(map(of, steady[:third]))
        last = statistics.median(map(of, steady[-third:]))
        print(f"  {name:<16} {first:10.2f} -> {last:10.2f}  {last / first - 1:+.1%}")
        if within is not None and last / first - 1 > within:
            wrong.append(f"{name} went from {first:.2f} to {last:.2f}")
    return wrong


def _write_model(path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "a"], ["y"])],
        "plus",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "a")],
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)


def main() -> None:
    """Soak and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", type=Path, help="write what was seen here")
    given = parser.parse_args()
    minutes: float = given.minutes
    if not Path("/proc/self/smaps_rollup").exists():
        print("skipped: only Linux tells a process's share of memory")
        return
    every_s = max(0.5, minutes * 60 / 200)
    with server(timeout_s=2.0) as soaked:
        end = time.monotonic() + minutes * 60
        found = soak(soaked, goes_on=lambda _: time.monotonic() < end, every_s=every_s)
    rounds = ", ".join(f"{count} {kind}" for kind, count in found.rounds.items())
    print(f"{minutes:g} minutes, {GOOD} good clients; bad clients' rounds: {rounds}")
    wrong = judged(found) + drifted(found.samples)
    if given.json is not None:
        told = {
            "minutes": minutes,
            "samples": [sample._asdict() for sample in found.samples],
            "before": found.before._asdict(),
            "after": found.after._asdict(),
            "rounds": found.rounds,
            "wrong": wrong,
        }
        given.json.write_text(json.dumps(told, indent=2) + "\n")
    if wrong:
        sys.exit("error: " + "\n  ".join(wrong))
    print("  every good answer right; connections, files and threads back where they were")


if __name__ == "__main__":
    main()
