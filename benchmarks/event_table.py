"""A million events as a table, and drift of a fleet: time, and how much memory each adds.

Events lie on a disk as devices write them. Each way of reading them runs in a process of its own:
its peak memory is its own, and what it adds is over that after all imports.

    python benchmarks/event_table.py [--events 1000000] [--devices 200] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet.protocol.event import Event

START = datetime(2026, 11, 2, tzinfo=UTC)
A_SEGMENT = 20_000  # events
FEATURES = 16
LIBRARIES = ("datasketches", "ibis.backends.duckdb", "numpy", "pandas", "pyarrow")
HOURS = 24


def events_of(number: int) -> Iterator[Event]:
    """The predictions of one segment, each with ten scores."""
    import random

    from edgefleet.protocol.event import OutputSummary, Prediction, new_event

    draw = random.Random(number)  # noqa: S311 - content, not a secret
    for second in range(A_SEGMENT):
        scores = tuple(round(draw.random(), 6) for _ in range(10))
        best = scores.index(max(scores))
        summary = OutputSummary(
            name="y", shape=(1, 10), values=scores, top=(best,), score=(scores[best],)
        )
        data = Prediction(
            model="digits",
            model_version="1",
            bundle="sha256:" + "0" * 64,
            variant="fp32",
            outputs=(summary,),
            latency_us=round(1000 + 500 * draw.random(), 1),
        )
        yield new_event(data, time=START + timedelta(seconds=second))


def write_events(home: Path, count: int) -> None:
    """So many predictions of ten devices."""
    from edgefleet.protocol.segment import SegmentName, write_segment

    for number in range(-(-count // A_SEGMENT)):
        name = SegmentName(
            day=START.date(), device=f"cam-{number % 10}", model="digits", id=str(number)
        )
        path = home / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            write_segment(events_of(number), stream)


def write_windows(home: Path, devices: int) -> None:
    """A day of hourly windows of each device, of so many features and a thousand values each."""
    import numpy as np

    from edgefleet.protocol.documents import to_builtins
    from edgefleet.protocol.event import SketchWindow, new_event
    from edgefleet.protocol.segment import SegmentName, write_segment
    from edgefleet.protocol.sketch import sketch_numbers

    draw = np.random.default_rng(0)
    made = [to_builtins(sketch_numbers(draw.normal(size=1000))) for _ in range(64)]
    for device in range(devices):
        events = []
        for hour in range(HOURS):
            start = START + timedelta(hours=hour)
            chosen = draw.integers(0, len(made), FEATURES)
            data = SketchWindow(
                model="digits",
                start=start,
                end=start + timedelta(hours=1),
                bundle="sha256:" + "0" * 64,
                requests=1000,
                features={f"x[{i}]": made[one] for i, one in enumerate(chosen)},
            )
            events.append(new_event(data, time=start + timedelta(hours=1)))
        name = SegmentName(day=START.date(), device=f"cam-{device}", model="digits", id="windows")
        path = home / name.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            write_segment(events, stream)


def _iterated(home: Path) -> int:
    from edgefleet_local.telemetry import LocalTelemetry

    return sum(1 for _ in LocalTelemetry(home).query(kind="prediction"))


def _table(home: Path) -> int:
    from edgefleet_local.telemetry import LocalTelemetry

    table = LocalTelemetry(home).query(kind="prediction").to_ibis()
    found = table.group_by("device", "top").agg(n=table.count(), score=table.score.mean())
    return int(sum(found.to_pyarrow()["n"].to_pylist()))


def _arrow(home: Path) -> int:
    from edgefleet_local.telemetry import LocalTelemetry

    return int(LocalTelemetry(home).query(kind="prediction").to_arrow().num_rows)


def _merged(home: Path) -> int:
    from types import SimpleNamespace

    import numpy as np

    from edgefleet.analysis import windows as w
    from edgefleet.analysis.gathering import Gathering, count_of
    from edgefleet.protocol.sketch import sketch_numbers
    from edgefleet_local.telemetry import LocalTelemetry

    version: Any = SimpleNamespace(digest="sha256:" + "0" * 64, version="1", reference="digits:1")
    registry: Any = None
    read = w.Windows(registry, [version], {}, "device")
    sketch = sketch_numbers(np.random.default_rng(1).normal(size=4000))
    reference = {f"x[{i}]": sketch for i in range(FEATURES)}
    read.wholes[version.digest] = whole = w.Whole("1", reference)
    for event in LocalTelemetry(home).query(kind="sketch"):
        read.take(event)
    fleet = Gathering(reference)
    for gathering in whole.units.values():
        fleet.absorb(gathering)
    return count_of(fleet.sketch("x[0]"))


WAYS: dict[str, Callable[[Path], int]] = {
    "iterated": _iterated,
    "Ibis table, grouped": _table,
    "Arrow table": _arrow,
    "windows merged": _merged,
}


def _child(way: str, home: Path) -> None:
    import resource

    for name in (*LIBRARIES, "edgefleet_local.telemetry", "edgefleet.analysis.drift"):
        import_module(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began = time.perf_counter()
    found = WAYS[way](home)
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"found": found, "seconds": took, "added_bytes": peak - before}))


def _measure(way: str, home: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", way, "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Write the events, measure each way of reading them, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=sorted(WAYS))
    parser.add_argument("--home", type=Path)
    given = parser.parse_args()
    if given.child:
        _child(given.child, given.home)
        return
    with tempfile.TemporaryDirectory(prefix="edgefleet-event-table-") as folder:
        home, windows = Path(folder) / "events", Path(folder) / "windows"
        write_events(home, given.events)
        write_windows(windows, given.devices)
        stored = sum(file.stat().st_size for file in home.rglob("*.zst"))
        rows = {way: _measure(way, windows if way == "windows merged" else home) for way in WAYS}
    assert rows["iterated"]["found"] == rows["Ibis table, grouped"]["found"] >= given.events
    print(f"{given.events:,} events, {stored / 1e6:.0f} MB stored; {os.cpu_count()} cores")
    print(f"{given.devices} devices, {HOURS} windows each, {FEATURES} features")
    for way, row in rows.items():
        print(f"{way:22} {row['seconds']:7.1f} s   {row['added_bytes'] / 1e6:8.0f} MB added")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
