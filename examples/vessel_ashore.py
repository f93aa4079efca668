"""What came ashore, read as any fleet's telemetry is, and held against the whole voyage.

Every claim about the vessel is a field or a method here, so that the example prints, the benchmark
tables and the tests assert the same figures.
"""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from vessel_cargo import CONTAINERS, DEPARTURE, MINUTES, Fault
from vessel_events import DEPARTURE_DAY, KEYS, MODEL, SKETCHED, number_of
from vessel_truth import tallies

from edgefleet.protocol.drift import Drift, compare
from edgefleet.protocol.event import Account, Alarm, Prediction, SketchWindow
from edgefleet.protocol.sketch import NumberSketch, merge_numbers, read_sketch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel_cargo import Cargo

    from edgefleet.interfaces.telemetry import EventQuery
    from edgefleet.protocol.event import Event
    from edgefleet.protocol.sketch import ClassSketch

COMPRESSOR = "compressor"


class Tallied(NamedTuple):
    """What is counted together: predictions of a day of the voyage, by class and tenth of score."""

    day: int
    top: int
    band: int


class Ashore:
    """Everything that a query gave.

    Args:
        query: for all events of the ship.
        cargo: what it carried.

    Attributes:
        unreadable: segments that couldn't be read, with the reason.
        repeated: events that came under an id that had come before.
        kinds: how many there were of each kind.
        kept: how many predictions came, by what is counted together.
    """

    def __init__(self, query: EventQuery, cargo: Cargo) -> None:
        self.cargo = cargo
        self.repeated = 0
        self.kinds: Counter[str] = Counter()
        self.kept: Counter[Tallied] = Counter()
        self._came = np.zeros(cargo.days * MINUTES * CONTAINERS, np.bool_)
        self._ids: set[str] = set()
        self._alarms: list[tuple[float, Alarm]] = []
        self._accounts: dict[tuple[str, str], Account] = {}
        self._sketches: dict[int, dict[str, list[NumberSketch]]] = {}
        self._verdicts: dict[int, str] = {}
        for event in query:
            self._take(event)
        self.unreadable = query.unreadable

    def _take(self, event: Event) -> None:
        self.kinds[event.kind] += 1
        if event.kind == "prediction":
            self._take_prediction(event)
            return
        self.repeated += event.id in self._ids
        self._ids.add(event.id)
        data = event.payload()
        if isinstance(data, Alarm):
            self._alarms.append((event.time.timestamp(), data))
        elif isinstance(data, Account):
            place = data.spool, data.day
            known = self._accounts.get(place)
            if known is None or known.number < data.number:
                self._accounts[place] = data
        elif isinstance(data, SketchWindow):
            self._take_sketches(data)

    def _take_prediction(self, event: Event) -> None:
        number = number_of(event.id)
        self.repeated += bool(self._came[number])
        self._came[number] = True
        data = event.payload()
        if isinstance(data, Prediction):
            state = data.outputs[0]
            band = min(9, int((state.score[0] or 0.0) * 10))
            self.kept[Tallied(number // (MINUTES * CONTAINERS), state.top[0], band)] += 1

    def _take_sketches(self, window: SketchWindow) -> None:
        day = (window.start.date() - DEPARTURE_DAY).days
        features = self._sketches.setdefault(day, {})
        for name, plain in window.features.items():
            sketch = read_sketch(plain)
            if isinstance(sketch, NumberSketch):
                features.setdefault(name, []).append(sketch)
        self._verdicts[day] = window.verdict

    # -------------------------------------------------------------------------------------- counts

    @property
    def accounts(self) -> tuple[Account, ...]:
        """The last account of each day."""
        return tuple(self._accounts.values())

    def seen(self) -> Counter[Tallied]:
        """How many predictions there were, by the accounts."""
        return self._by_accounts("seen")

    def dropped(self) -> Counter[Tallied]:
        """How many of them had to go, by the accounts."""
        return self._by_accounts("dropped")

    def _by_accounts(self, field: str) -> Counter[Tallied]:
        found: Counter[Tallied] = Counter()
        for account in self.accounts:
            day = (date.fromisoformat(account.day) - DEPARTURE_DAY).days
            for tally in account.tallies:
                if (tally.kind, tally.model) != ("prediction", MODEL):
                    continue
                if tally.top is None or tally.band is None:
                    msg = f"predictions of day {day} are counted without their class or score"
                    raise AssertionError(msg)
                found[Tallied(day, tally.top, tally.band)] += getattr(tally, field)
        return +found

    def truth(self) -> Counter[Tallied]:
        """How many predictions there really were."""
        found: Counter[Tallied] = Counter()
        for number in range(self.cargo.days):
            day = self.cargo.day(number)
            for (top, band), count in tallies(day).items():
                found[Tallied(number, top, band)] = count
        return found

    # -------------------------------------------------------------------------------------- alarms

    def faults(self) -> tuple[Fault, ...]:
        """Faults as the alarms tell of them: from the minute they began to the minute they ended.

        An alarm begins in the third minute of a fault, and ends in the third after it.
        """
        open_: dict[str, int] = {}
        found = []
        for time, alarm in sorted(self._alarms, key=lambda each: each[0]):
            if alarm.rule != COMPRESSOR:
                continue
            minute = round((time - DEPARTURE) / 60)
            if alarm.ended:
                found.append(Fault(KEYS.index(alarm.key), open_.pop(alarm.key) - 2, minute - 2))
            else:
                open_[alarm.key] = minute
        return tuple(sorted(found))

    # --------------------------------------------------------------------------------------- drift

    def drift(
        self, reference: Mapping[str, NumberSketch | ClassSketch]
    ) -> dict[int, dict[str, Drift]]:
        """Each day and feature held against the reference, by the sketches that came."""
        return {
            day: {
                name: compare(
                    reference[name], merge_numbers(features[name]), features=len(SKETCHED)
                )
                for name in SKETCHED
            }
            for day, features in sorted(self._sketches.items())
        }

    @property
    def verdicts(self) -> dict[int, str]:
        """What the device itself said of each day, at sea."""
        return dict(sorted(self._verdicts.items()))
