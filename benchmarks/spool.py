"""What the spool costs over a plain SQLite loop that stores the same events as durably.

All put the same batches of prediction events into a database with the same settings, one commit a
batch. A spool takes them unsorted while there is much room ("spool"), sorts what is there and then
each batch ("filling"), and at last turns most away ("full"). What the exit code says is of the
first and the last: the time in between, when rows are written twice, is shown only. The plain loop
encodes each event and inserts it; "rows at once" gets rows that are encoded already and gives each
batch to `executemany`, the least that Python can do. Every round runs all cases in turn, each in a
folder of its own on the same disk. Then a process of its own is filled with a backlog, to see what
that does to its memory.

    python benchmarks/spool.py [--rounds 7] [--backlog 500000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import gc
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgefleet.protocol.event import Event, OutputSummary, Prediction, new_event
from edgefleet_runtime.spool.departures import Departures
from edgefleet_runtime.spool.samples import SampleFiles
from edgefleet_runtime.spool.store import Store

EVENTS = 10_000  # of each case in a round
LARGE, MIDDLE, SMALL = 512 << 20, 32 << 20, 4 << 20  # caps: never reached, half of it, always
BEFORE = {MIDDLE: 6_000, SMALL: EVENTS}  # events that are there; a few more and they are sorted
BATCHES = (50, 500)
GOAL = 0.5
PLAIN, AT_ONCE = "plain loop", "rows at once"
SPOOL, FILLING, FULL = "spool", "spool, filling", "spool, full"
CAPS = {SPOOL: LARGE, FILLING: MIDDLE, FULL: SMALL}

Made = tuple[Event, tuple[OutputSummary, ...]]


class Ran(NamedTuple):
    """Events a second, microseconds of processor time and bytes written for each."""

    rate: float
    cpu_us: float
    bytes: float


def events(count: int) -> list[Made]:
    """Predictions of ten classes, most of them sure."""
    chance = random.Random(1)  # noqa: S311 - the same each time
    found: list[Made] = []
    for _ in range(count):
        top, score = min(9, int(chance.expovariate(0.5))), chance.betavariate(8, 1)
        values = tuple(round(chance.random(), 6) for _ in range(10))
        outputs = (
            OutputSummary(name="y", shape=(1, 10), values=values, top=(top,), score=(score,)),
        )
        prediction = Prediction(
            model="digits",
            model_version="7",
            bundle="sha256:" + "0" * 64,
            variant="int8",
            outputs=outputs,
            latency_us=125.0,
        )
        found.append((new_event(prediction), outputs))
    return found


def plain(folder: Path, made: list[Made], batch: int, *, at_once: bool) -> None:
    """The loop that anybody would write."""
    rows = [(msgspec.json.encode(event),) for event, _ in made] if at_once else []
    start()
    sql = sqlite3.connect(folder / "plain.db", isolation_level=None)
    for setting in (
        "page_size=4096",
        "locking_mode=EXCLUSIVE",
        "journal_mode=WAL",
        "synchronous=FULL",
        "cache_size=-2048",
    ):
        sql.execute(f"PRAGMA {setting}").fetchall()
    sql.execute("CREATE TABLE events(id INTEGER PRIMARY KEY, event BLOB NOT NULL)")
    insert = "INSERT INTO events(event) VALUES (?)"
    for first in range(0, len(made), batch):
        sql.execute("BEGIN")
        if at_once:
            sql.executemany(insert, rows[first : first + batch])
        else:
            for event, _ in made[first : first + batch]:
                sql.execute(insert, (msgspec.json.encode(event),))
        sql.execute("COMMIT")
    sql.close()


def spool(folder: Path, made: list[Made], batch: int, cap: int = LARGE) -> None:
    """The spool's store, with its rating, counting and cap; a small one is full before."""
    if count := BEFORE.get(cap):
        there = Store(folder, SampleFiles(folder, cap // 2), max_bytes=cap)
        for first in range(0, count, 500):
            before = [(renamed(event), outputs) for event, outputs in made[first : first + 500]]
            there.put([there.rater.entry(*each) for each in before])
        there.close()
    start()
    store = Store(folder, SampleFiles(folder, cap // 2), max_bytes=cap)
    for first in range(0, len(made), batch):
        store.put([store.rater.entry(*each) for each in made[first : first + batch]])
    store.turn(1)
    store.close()


def renamed(event: Event) -> Event:
    """Another event that says the same."""
    return msgspec.structs.replace(event, id=uuid.uuid5(uuid.NAMESPACE_OID, event.id).hex)


_started = [0.0, 0.0, 0]


def start() -> None:
    """From here on time and bytes count."""
    gc.collect()
    _started[:] = [time.perf_counter(), time.process_time(), written()]


def written() -> int:
    """Bytes that this process has handed to the kernel for writing."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def measured(case: str, folder: Path, made: list[Made], batch: int) -> Ran:
    """Run a case once."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if case in {PLAIN, AT_ONCE}:
        plain(folder, made, batch, at_once=case == AT_ONCE)
    else:
        spool(folder, made, batch, CAPS[case])
    seconds, cpu_s = time.perf_counter() - _started[0], time.process_time() - _started[1]
    count = len(made)
    return Ran(count / seconds, cpu_s / count * 1e6, (written() - _started[2]) / count)


def compare(rounds: int, folder: Path) -> bool:
    """Print medians of each case; returns whether the goal is reached."""
    made = events(EVENTS)
    good = True
    head = ("events a commit", "case", "events/s", "of the plain loop, median (range)")
    print("|", " | ".join((*head, "processor µs", "bytes an event")), "|")
    print("|---:|---|---:|---:|---:|---:|")
    for batch in BATCHES:
        ran: dict[str, list[Ran]] = {case: [] for case in (PLAIN, SPOOL, FILLING, FULL, AT_ONCE)}
        for _ in range(rounds):
            for case, found in ran.items():
                found.append(measured(case, folder / "round", made, batch))
        for case, found in ran.items():
            ratios = [each.rate / base.rate for each, base in zip(found, ran[PLAIN], strict=True)]
            ratio = statistics.median(ratios)
            good = good and (case in {AT_ONCE, FILLING} or ratio >= GOAL)
            print(
                f"| {batch} | {case} | {statistics.median(r.rate for r in found):,.0f} "
                f"| {ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
                f"| {statistics.median(r.cpu_us for r in found):.1f} "
                f"| {statistics.median(r.bytes for r in found):,.0f} |"
            )
    return good


def memory_mib(field: str) -> float:
    """A figure of this process's memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def backlog(count: int, folder: Path) -> None:
    """Fill a store with a backlog and send it, and print what that did to memory."""
    made = events(500)
    before = memory_mib("VmRSS")
    store = Store(folder, SampleFiles(folder, LARGE // 2), max_bytes=LARGE)
    opened = memory_mib("VmRSS")
    for number in range(0, count, len(made)):
        again = [
            (msgspec.structs.replace(event, id=f"{number + n:032x}"), outputs)
            for n, (event, outputs) in enumerate(made)
        ]
        store.put([store.rater.entry(*each) for each in again])
    store.turn(1)
    kept, filled, used = sum(store.waiting.values()), memory_mib("VmHWM"), store.used_bytes
    outgoing = Departures(store, device="cam-07", now=lambda: datetime.now(UTC))
    sent = 0
    begin = time.perf_counter()
    while batch := outgoing.batch(4 << 20, lean=False, everything=True):
        for segment in batch.segments:
            sent += segment.events
            outgoing.sent(batch, segment.name)
    seconds = time.perf_counter() - begin
    print(
        f"memory beside {before:.0f} MiB: {opened - before:.1f} MiB with nothing in the spool, "
        f"{filled - before:.1f} MiB at most with {kept:,} events ({used / 2**20:.0f} MiB), "
        f"{memory_mib('VmHWM') - before:.1f} MiB at most while they were packed "
        f"({sent / seconds:,.0f} events/s)"
    )
    store.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backlog", type=int, default=500_000)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    parser.add_argument("--fill", action="store_true", help="only fill a backlog, in this process")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.fill:
            backlog(given.backlog, Path(folder))
            return
        good = compare(given.rounds, Path(folder))
        again = [sys.executable, __file__, "--fill", "--backlog", str(given.backlog)]
        subprocess.run([*again, "--folder", folder], check=True)
    print(f"at least {GOAL} of a plain SQLite loop, {FILLING!r} apart: {'yes' if good else 'no'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
