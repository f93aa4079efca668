"""A whole voyage: sail, unload, ask the fleet what came, and hold it against the full data."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from vessel_ashore import Ashore
from vessel_cargo import FEATURES, Cargo
from vessel_events import SKETCHED
from vessel_sentry import Sentry
from vessel_ship import DEVICE, DRIFT, GROUP, Ship
from vessel_truth import Reference

import edgefleet as ef

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vessel_ship import Hour
    from vessel_truth import Exact

    from edgefleet.analysis.losses_report import Losses
    from edgefleet.protocol.drift import Drift

LIMITS = DRIFT.limits
SETTLED_DAYS = 1.0  # until then, whatever grows once has grown
MB = 1 << 20
PROFILE = """\
[profiles.default]
provider = "local"

[profiles.default.local]
root = "ashore"
supervise = false  # the ship's device is ours
"""


class Held(NamedTuple):
    """A feature of a day: by the sketches that came ashore, by the full data, by the device."""

    day: int
    feature: str
    found: Drift
    exact: Exact

    @property
    def agrees(self) -> bool:
        """Whether the verdicts are equal, or the exact figures lie at a limit by the bounds."""
        return self.found.verdict in self.exact.verdicts(LIMITS)


class Voyage(NamedTuple):
    """What a voyage left.

    Attributes:
        cargo: the full data.
        ship: the device, with nothing left on it.
        sentry: how full the disk was.
        hours: how it was, each hour at sea; then each minute in port.
        ashore: what came.
        losses: what had to go, as the fleet tells it.
        held: each feature of each day.
        at_sea: seconds that the days took, and of them the processor's.
        in_port: likewise.
    """

    cargo: Cargo
    ship: Ship
    sentry: Sentry
    hours: list[Hour]
    ashore: Ashore
    losses: Losses
    held: list[Held]
    at_sea: tuple[float, float]
    in_port: tuple[float, float]

    @property
    def sea(self) -> list[Hour]:
        """The hours at sea."""
        return [hour for hour in self.hours if hour.day <= self.cargo.days]

    @property
    def fullest_bytes(self) -> int:
        """The most that the spool's folder held at any moment at which it was looked at."""
        return max(self.sentry.fullest_bytes, *(hour.folder_bytes for hour in self.hours))

    @property
    def memory_grown_bytes(self) -> int:
        """How much more memory the process ever had than after the first day."""
        settled = [hour for hour in self.hours if hour.day >= SETTLED_DAYS]
        return max(hour.memory_bytes for hour in settled) - settled[0].memory_bytes


class Claim(NamedTuple):
    """Something that the voyage shows."""

    what: str
    figure: str
    holds: bool


def replay(days: int, folder: Path, progress: Callable[[Hour], object] = lambda _: None) -> Voyage:
    """Sail, unload and ask.

    Args:
        days: length of the voyage.
        folder: for the ship's disk, and for what comes ashore.
        progress: called after each hour at sea.
    """
    config = folder / "edgefleet.toml"
    config.write_text(PROFILE, encoding="utf-8")
    cargo = Cargo(days)
    ship = Ship(cargo, folder / "ship", folder / "ashore" / "fleet" / "devices" / DEVICE)
    hours, began = [], _now()
    with Sentry(ship.folder) as sentry:
        for hour in ship.sail():
            hours.append(hour)
            progress(hour)
        at_sea, began = _since(began), _now()
        hours.extend(ship.unload())
        in_port = _since(began)
    with ef.connect(config=config) as fleet:
        fleet.enroll(DEVICE, group=GROUP)
        ashore = Ashore(fleet.telemetry.query(device=DEVICE), cargo)
        losses = fleet.losses()
    held = _held(cargo, ship, ashore)
    return Voyage(cargo, ship, sentry, hours, ashore, losses, held, at_sea, in_port)


def claims(voyage: Voyage) -> list[Claim]:
    """What is shown, with its figures."""
    ship, ashore = voyage.ship, voyage.ashore
    seen, dropped, kept = ashore.seen(), ashore.dropped(), ashore.kept
    faults = len(voyage.cargo.faults)
    near = sum(held.exact.within_bounds(held.found) for held in voyage.held)
    same = sum(held.found.verdict == held.exact.verdict(LIMITS) for held in voyage.held)
    grown = voyage.memory_grown_bytes
    return [
        Claim(
            "the cap holds at every moment",
            f"{voyage.fullest_bytes / MB:.1f} of {ship.cap_bytes / MB:.1f} MiB at most,"
            f" in {voyage.sentry.looks:,} looks",
            voyage.fullest_bytes <= ship.cap_bytes,
        ),
        Claim(
            "no alarm is lost",
            f"{ashore.kinds['alarm']} events tell of {faults} faults",
            ashore.faults() == voyage.cargo.faults,
        ),
        Claim(
            "counts by day, class and score are exact",
            f"{seen.total():,} predictions in {len(seen)} tallies",
            seen == ashore.truth(),
        ),
        Claim(
            "what was kept came, each once",
            f"{kept.total():,} predictions; {ship.link.repeated} deliveries were repeated",
            kept == seen - dropped and not ashore.repeated,
        ),
        Claim(
            "drift from what was kept is drift from everything",
            f"{same} of {len(voyage.held)} verdicts equal, {near} of them within the stated bound",
            all(held.agrees for held in voyage.held) and near >= 0.99 * len(voyage.held),
        ),
        Claim("memory stays bounded", f"{grown / MB:.0f} MiB more after day 1", grown < 64 * MB),
    ]


def _held(cargo: Cargo, ship: Ship, ashore: Ashore) -> list[Held]:
    before = cargo.calibration().features
    references = [Reference(before[..., index]) for index in range(len(FEATURES))]
    found = ashore.drift(ship.reference)
    held = []
    for number in range(cargo.days):
        features = cargo.day(number).features
        for index, name in enumerate(SKETCHED):
            exact = references[index].hold(features[..., index])
            held.append(Held(number, FEATURES[index], found[number][name], exact))
    return held


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    wall, processor = _now()
    return wall - began[0], processor - began[1]
