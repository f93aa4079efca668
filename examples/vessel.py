"""Months at sea: forty containers, five million events, a disk of 256 MB, and no link till port.

    python examples/vessel.py [--days N] [--output FOLDER]

A ship's device records, judges and drops by itself, through the real spool, sync, sketches, windows
and alarms of the runtime; only time is ours, so that a day takes seconds. In port everything goes
to the embedded fleet, and what came is held against everything that there was. `--days 90` is the
whole voyage; fewer days have that share of the 256 MB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vessel_cargo import Cargo
from vessel_hour import differing, expected, reduced
from vessel_plot import draw
from vessel_voyage import MB, claims, replay

if TYPE_CHECKING:
    from vessel_ship import Hour


def main() -> None:
    """Sail, unload, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("vessel-out"))
    given = parser.parse_args()

    # Sensors give four figures a second. The rules of the policy make a window of each minute.
    seconds = Cargo(1).seconds(0, hour=12)
    windows = reduced(seconds)
    wrong = differing(windows, expected(seconds))
    print(f"an hour at 1 Hz: {seconds[..., 0].size:,} readings became {len(windows):,} windows,")
    print(f"  {wrong} figures of which differ from what numpy makes of the readings")

    with tempfile.TemporaryDirectory(prefix="vessel-") as folder:
        voyage = replay(given.days, Path(folder), tell)
    ship = voyage.ship
    print(f"{ship.events:,} events, {ship.event_bytes / MB:,.0f} MiB of data, on a disk of")
    print(f"  {ship.cap_bytes / MB:.1f} MiB: {voyage.at_sea[0]:.0f} s for {given.days} days")
    print(voyage.losses.summary)
    for claim in claims(voyage):
        print(f"{'ok ' if claim.holds else 'NOT'} {claim.what}: {claim.figure}")

    given.output.mkdir(parents=True, exist_ok=True)
    draw(voyage, given.output / "vessel.png")
    print(given.output / "vessel.png")
    if wrong or not all(claim.holds for claim in claims(voyage)):
        sys.exit(1)


def tell(hour: Hour) -> None:
    """A line a day, as the device has it."""
    if hour.day % 1:
        return
    waiting = ", ".join(f"{count:,} {shelf}" for shelf, count in hour.waiting.items() if count)
    print(f"day {hour.day:2.0f}: {hour.folder_bytes / MB:6.1f} MiB: {waiting}", flush=True)


if __name__ == "__main__":
    main()
