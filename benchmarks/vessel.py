"""Ninety days of a vessel without a link: what its disk of 256 MB keeps, and how long that takes.

    python benchmarks/vessel.py [--days N] [--json FILE] [--markdown FILE] [--picture FILE]

Forty refrigerated containers give an event a minute each, 5.2 million in all, through the real
spool, sketches, windows and alarms of the runtime by a virtual clock; in port everything goes to
the embedded fleet through the file channel. A thread looks at the folder's size all the while.
Fewer days have that share of the 256 MB. Exits with 1 where a claim doesn't hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from vessel_plot import draw
from vessel_voyage import LIMITS, MB, claims, replay

if TYPE_CHECKING:
    from vessel_ship import Hour
    from vessel_voyage import Claim, Voyage


def main() -> None:
    """Sail, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--picture", type=Path, help="draw the voyage here, as PNG")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgefleet-vessel-") as folder:
        voyage = replay(given.days, Path(folder), tell)
    shown = claims(voyage)
    tables = "\n".join([*figures(voyage), "", *claimed(shown), "", *kept(voyage)])
    print(f"\n{tables}")
    if given.picture:
        draw(voyage, given.picture)
    if given.markdown:
        given.markdown.write_text(tables + "\n", encoding="utf-8")
    if given.json:
        given.json.write_text(json.dumps(plain(voyage, shown), indent=2), encoding="utf-8")
    broken = [claim.what for claim in shown if not claim.holds]
    if broken:
        sys.exit(f"does not hold: {', '.join(broken)}")


def tell(hour: Hour) -> None:
    """A line every five days."""
    if hour.day % 5 == 0:
        waiting, dropped = sum(hour.waiting.values()), sum(hour.dropped.values())
        print(
            f"day {hour.day:3.0f}: {hour.folder_bytes / MB:6.1f} MiB,"
            f" {waiting:9,} events wait, {dropped:11,} dropped",
            flush=True,
        )


def figures(voyage: Voyage) -> list[str]:
    """What it took."""
    ship = voyage.ship
    (sea_s, sea_cpu_s), (port_s, _) = voyage.at_sea, voyage.in_port
    peak = max(hour.memory_bytes for hour in voyage.hours)
    rows = {
        "days": f"{voyage.cargo.days}",
        "events": f"{ship.events:,}",
        "their data": f"{ship.event_bytes / MB:,.0f} MiB",
        "cap": f"{ship.cap_bytes / MB:.1f} MiB",
        "most on the disk": f"{voyage.fullest_bytes / MB:.1f} MiB",
        "at sea": f"{sea_s:.0f} s, of which the processor's {sea_cpu_s:.0f} s",
        "an event": f"{sea_cpu_s / ship.events * 1e6:.0f} µs of the processor",
        "in port": f"{port_s:.0f} s",
        "memory of the process": f"{peak / MB:.0f} MiB",
        "processors": f"{os.cpu_count()}",
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def claimed(shown: list[Claim]) -> list[str]:
    """What it showed."""
    rows = (f"| {c.what} | {'yes' if c.holds else '**no**'} | {c.figure} |" for c in shown)
    return ["| claim | holds | figures |", "|---|---|---|", *rows]


def kept(voyage: Voyage) -> list[str]:
    """What came ashore and what had to go, by tenths of the score and by shelf."""
    lines = ["| predictions with a score from | all | kept | share |", "|---|---|---|---|"]
    seen, came = Counter[int](), Counter[int]()
    for tallied, count in voyage.ashore.seen().items():
        seen[tallied.band] += count
    for tallied, count in voyage.ashore.kept.items():
        came[tallied.band] += count
    lines += [
        f"| 0.{band} | {seen[band]:,} | {came[band]:,} | {came[band] / seen[band]:.1%} |"
        for band in sorted(seen)
    ]
    lines += ["", "| shelf | kept | dropped |", "|---|---|---|"]
    last = voyage.sea[-1]
    lines += [
        f"| {shelf} | {count:,} | {last.dropped[shelf]:,} |"
        for shelf, count in last.waiting.items()
        if count or last.dropped[shelf]
    ]
    return lines


def plain(voyage: Voyage, shown: list[Claim]) -> dict[str, object]:
    """The figures as data."""
    ship = voyage.ship
    return {
        "days": voyage.cargo.days,
        "events": ship.events,
        "event_bytes": ship.event_bytes,
        "cap_bytes": ship.cap_bytes,
        "fullest_bytes": voyage.fullest_bytes,
        "at_sea_s": voyage.at_sea[0],
        "at_sea_cpu_s": voyage.at_sea[1],
        "in_port_s": voyage.in_port[0],
        "memory_grown_bytes": voyage.memory_grown_bytes,
        "claims": {claim.what: claim.holds for claim in shown},
        "drift": [
            {
                "day": held.day,
                "feature": held.feature,
                "kept": held.found.verdict,
                "full": held.exact.verdict(LIMITS),
                "kept_psi": held.found.psi,
                "full_psi": held.exact.psi,
                "kept_ks": held.found.ks,
                "full_ks": held.exact.ks,
            }
            for held in voyage.held
        ],
    }


if __name__ == "__main__":
    main()
