"""What sending costs a device: processor time for a megabyte that leaves it.

    python benchmarks/sync.py [--events N] [--rounds N]

A spool full of predictions is sent by the sync to a folder on the same disk, once as fast as it
goes and once below a rate that the policy sets (the pauses are skipped: they cost nothing). So the
figures hold reading the events, packing them into segments, and the sync itself, and no network.
Exits with 1 where an event is missing at the end.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgefleet.errors import UnavailableError
from edgefleet.protocol.event import Event, OutputSummary, Prediction, new_event
from edgefleet.protocol.policy import SyncPolicy, TelemetryPolicy
from edgefleet.protocol.release import Release
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.channels.file import FileChannel
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.sync.sync import Sync

CAP = 256 << 20
SLICE = 1000  # events handed to the spool at once
RATE = 10_000_000  # bytes a second


class Away(FileChannel):
    """Takes nothing while the spool is filled."""

    def upload(self, name: str, path: Path) -> None:
        raise UnavailableError(f"{name}: {path} can't go")


class Skipping:
    """A clock that pauses move, so that they take no time."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._skipped

    def pause(self, seconds: float) -> None:
        """Let so many seconds have passed."""
        self._skipped += seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    missing = 0
    for title, rate in (("as fast as it goes", None), (f"below {RATE:,} bytes/s", RATE)):
        found = [_measure(arguments.events, rate) for _ in range(arguments.rounds)]
        missing += sum(missed for *_, missed in found)
        sent = statistics.median(size for _, size, _ in found)
        cpu = statistics.median(seconds / size * 1e6 for seconds, size, _ in found)
        each = statistics.median(seconds for seconds, *_ in found) / arguments.events
        print(
            f"{title}: {cpu:.2f} s of CPU for a megabyte sent, {each * 1e6:.1f} µs an event, "
            f"{sent / arguments.events:.1f} bytes an event"
        )
    print(f"{missing} events missing")
    return 1 if missing else 0


def _measure(count: int, rate: int | None) -> tuple[float, int, int]:
    """Seconds of CPU, bytes sent, events missing."""
    with tempfile.TemporaryDirectory() as scratch:
        root, outbox = Path(scratch, "spool"), Path(scratch, "outbox")
        filling = Spool(root, Away(root, root), device="cam-07", max_bytes=CAP)
        for start in range(0, count, SLICE):
            filling.put([_prediction(number) for number in range(start, start + SLICE)])
            filling.turn()
        filling.close()
        clock = Skipping()
        channel = FileChannel(root / "pointer.json", outbox)
        syncing = partial(Sync, pause=clock.pause)
        spool = Spool(root, channel, device="cam-07", max_bytes=CAP, clock=clock, syncing=syncing)
        spool.follow(Release(telemetry=TelemetryPolicy(sync=SyncPolicy(max_bytes_per_s=rate))))
        spool.recover()
        before = time.process_time()
        spool.finish()
        seconds = time.process_time() - before
        spool.close()
        return seconds, spool.sync.state.bytes, count - _received(outbox)


def _received(outbox: Path) -> int:
    found: set[str] = set()
    for path in outbox.rglob("*.ndjson.zst"):
        with path.open("rb") as stream:
            found |= {e.id for e in read_segment(stream) if e.kind == "prediction"}
    return len(found)


def _prediction(number: int) -> Event:
    score = (number * 7919 % 1000) / 1000
    output = OutputSummary(
        name="probabilities",
        shape=(1, 10),
        values=tuple((number * prime % 997) / 997 for prime in range(1, 11)),
        top=(number % 10,),
        score=(score,),
    )
    return new_event(
        Prediction(
            model="digits",
            model_version="1",
            bundle="sha256:" + "0" * 64,
            variant="int8",
            outputs=(output,),
            latency_us=100 + score,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
