"""Measures the serving figures of this machine: ours, the floor, a null server, raw runs.

``python -m benchmarks.serving.run [--rounds N] [--quick] [--json FILE]``, at the root of the tree.
All servers run at once and are asked in turn, so that what else the machine does falls on each
alike; figures are medians over the rounds, and so are ratios of what came right after one another.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.serving import load, models

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("null", "floor", "ours")
Figures = dict[str, list[float]]


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--quick", action="store_true", help="the MLP alone, fewer requests")
    options.add_argument("--json", type=Path, help="write the medians here")
    chosen = options.parse_args()
    if load.H2LOAD is None:
        raise SystemExit("h2load is missing; on Debian and Ubuntu: apt install nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="ef") as name:
        figures = measure_mlp(Path(name), chosen.rounds, 1500 if chosen.quick else 4000)
        if not chosen.quick:
            figures |= measure_squeezenet(Path(name), chosen.rounds)
    figures |= measure_in_process(Path(tempfile.gettempdir()), chosen.rounds)
    medians = {key: statistics.median(values) for key, values in figures.items()}
    for line in report(medians):
        print(line)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(medians, indent=2, sort_keys=True) + "\n")


def measure_mlp(folder: Path, rounds: int, requests: int) -> Figures:
    """REST with one client, with many, and over a Unix socket; memory and start."""
    figures: Figures = defaultdict(list)
    subject = models.mlp(folder)
    for _ in range(rounds):
        for kind in KINDS[1:]:
            with load.serving(kind, subject) as peer:
                figures[f"mlp ready {kind} s"].append(peer.ready_s)
                load.load(peer, subject, folder, clients=1, requests=500)
                figures[f"mlp pss {kind} MB"].append(load.pss_bytes(peer.pid) / 1e6)
    with ExitStack() as stack:
        peers = {
            kind: stack.enter_context(load.serving(kind, subject, folder / f"{kind}.sock"))
            for kind in KINDS
        }
        for kind, peer in peers.items():  # warm
            load.load(peer, subject, folder, clients=8, requests=500)
            assert kind
        for _ in range(rounds):
            figures["mlp raw us"].append(raw_us(subject, 5000))
            for kind, peer in peers.items():
                one = load.load(peer, subject, folder, clients=1, requests=requests)
                figures[f"mlp 1 {kind} us"].append(one.p50_us)
                uds = load.load(peer, subject, folder, clients=1, requests=requests, uds=True)
                figures[f"mlp uds {kind} us"].append(uds.p50_us)
            many = {
                kind: load.load(peer, subject, folder, clients=32, requests=requests * 8)
                for kind, peer in peers.items()
            }
            for kind, seen in many.items():
                figures[f"mlp 32 {kind} /s"].append(seen.per_s)
                figures[f"mlp 32 {kind} p99 us"].append(seen.p99_us)
                figures[f"mlp 32 {kind} ratio"].append(seen.per_s / many["null"].per_s)
    return figures


def measure_squeezenet(folder: Path, rounds: int) -> Figures:
    """A model that takes milliseconds, with eight clients and with one."""
    figures: Figures = defaultdict(list)
    subject = models.from_onnx_package("squeezenet")
    with ExitStack() as stack:
        peers = {k: stack.enter_context(load.serving(k, subject)) for k in KINDS[1:]}
        for peer in peers.values():
            load.load(peer, subject, folder, clients=8, requests=64)
        for _ in range(rounds):
            figures["squeezenet raw us"].append(raw_us(subject, 60))
            for kind, peer in peers.items():
                many = load.load(peer, subject, folder, clients=8, requests=240)
                figures[f"squeezenet 8 {kind} /s"].append(many.per_s)
                one = load.load(peer, subject, folder, clients=1, requests=60)
                figures[f"squeezenet 1 {kind} us"].append(one.p50_us)
    return figures


def measure_in_process(folder: Path, rounds: int) -> Figures:
    """`Runtime.infer` against `session.run` in the same process, in turns."""
    from edgefleet_runtime import Runtime

    figures: Figures = defaultdict(list)
    for subject, runs in ((models.mlp(folder), 3000), (models.from_onnx_package("squeezenet"), 20)):
        session = raw_session(subject)
        with Runtime({subject.name: subject.path}) as runtime:
            for _ in range(rounds * 3):
                raw = p50_us(lambda: session.run(None, subject.inputs), runs)  # noqa: B023
                ours = p50_us(lambda: runtime.infer(subject.name, subject.inputs), runs)  # noqa: B023
                figures[f"in process {subject.name} ratio"].append(ours / raw)
    return figures


def raw_session(subject: models.Subject):  # type: ignore[no-untyped-def]  # noqa: ANN201 - onnxruntime has no types
    """What the ratios are over: a session with onnxruntime's own settings."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(subject.path), providers=["CPUExecutionProvider"])


def raw_us(subject: models.Subject, runs: int) -> float:
    """Median time of `session.run` in this process, in microseconds."""
    session = raw_session(subject)
    return p50_us(lambda: session.run(None, subject.inputs), runs)


def p50_us(call: Callable[[], object], runs: int) -> float:
    """Median time of a call in microseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


def report(m: dict[str, float]) -> list[str]:
    """The rows of the goals' table that were measured."""
    rows: list[tuple[str, str, str, float, str]] = []

    def row(what: str, floor: str, ours: str, ratio: float, goal: str) -> None:
        rows.append((what, floor, ours, ratio, goal))

    floor, ours = m["mlp 1 floor us"] - m["mlp raw us"], m["mlp 1 ours us"] - m["mlp raw us"]
    row("MLP, 1 client, p50 over raw", f"{floor:.0f} us", f"{ours:.0f} us", ours / floor, "<= 1.15")
    null = m["mlp 32 null /s"]
    for kind in KINDS[1:]:
        per_s = m[f"mlp 32 {kind} /s"]
        goal = ">= 0.45" if kind == "ours" else ""
        ratio = m[f"mlp 32 {kind} ratio"]
        row(f"MLP, 32 clients, {kind} over null", f"{null:.0f}/s", f"{per_s:.0f}/s", ratio, goal)
    tcp, uds = m["mlp 1 ours us"], m["mlp uds ours us"]
    row("Unix socket p50 over TCP", f"{tcp:.0f} us", f"{uds:.0f} us", uds / tcp, "<= 1.05")
    less, more = m["mlp pss floor MB"], m["mlp pss ours MB"]
    row("memory (PSS), MB over floor", f"{less:.0f} MB", f"{more:.0f} MB", more - less, "<= 12")
    less, more = m["mlp ready floor s"], m["mlp ready ours s"]
    row("cold start to the first answer", f"{less:.2f} s", f"{more:.2f} s", more / less, "<= 1.3")
    if "squeezenet raw us" in m:
        raw = 1e6 / m["squeezenet raw us"]
        for kind in KINDS[1:]:
            per_s = m[f"squeezenet 8 {kind} /s"]
            goal = ">= 0.85" if kind == "ours" else ""
            row(
                f"squeezenet, 8 clients, {kind} over raw",
                f"{raw:.0f}/s",
                f"{per_s:.0f}/s",
                per_s / raw,
                goal,
            )
    for name, goal in (("mlp", "<= 1.25"), ("squeezenet", "<= 1.02")):
        key = f"in process {name} ratio"
        if key in m:
            row(f"in process, {name}, over session.run", "", "", m[key], goal)
    lines = ["| figure | against | ours | ratio | goal |", "|---|---|---|---|---|"]
    return lines + [f"| {a} | {b} | {c} | {d:.2f} | {e} |" for a, b, c, d, e in rows]


if __name__ == "__main__":
    main()
