"""Five days of a ship without a link, its disk five ninetieths of 256 MB: what is kept, and told.

The whole voyage of ninety days is `benchmarks/vessel.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"
DAYS = 5
MB = 1 << 20


@pytest.fixture(scope="module")
def vessel() -> Iterator[Any]:
    """The modules of the example."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        patch.setattr(sys, "dont_write_bytecode", True)
        import vessel_cargo
        import vessel_events
        import vessel_hour
        import vessel_voyage

        yield SimpleNamespace(
            cargo=vessel_cargo, events=vessel_events, hour=vessel_hour, voyage=vessel_voyage
        )


@pytest.fixture(scope="module")
def voyage(vessel: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Five days at sea, and then port."""
    return vessel.voyage.replay(DAYS, tmp_path_factory.mktemp("vessel"))


def test_the_cap_holds_at_every_moment_of_a_voyage_that_fills_it_several_times(voyage: Any) -> None:
    ship = voyage.ship
    assert ship.event_bytes > 5 * ship.cap_bytes
    assert voyage.sentry.looks > 100
    assert voyage.fullest_bytes <= ship.cap_bytes
    assert voyage.fullest_bytes > ship.cap_bytes // 2, "what there is is used"


def test_every_alarm_comes_ashore_with_the_minute_in_which_it_began_and_ended(voyage: Any) -> None:
    assert len(voyage.cargo.faults) == 17
    assert voyage.ashore.faults() == voyage.cargo.faults


def test_accounts_tell_exactly_how_many_predictions_of_each_class_and_score_there_were(
    voyage: Any,
) -> None:
    assert voyage.ashore.seen() == voyage.ashore.truth()


def test_the_fleet_tells_what_was_kept_of_what_there_was(voyage: Any) -> None:
    kept = {row.kind: (row.kept, row.seen) for row in voyage.losses.kinds}
    came = voyage.ashore.kinds
    assert kept["prediction"] == (came["prediction"], DAYS * 1440 * 40)
    assert kept["alarm"] == (came["alarm"], came["alarm"])
    assert kept["window"] == (came["window"], DAYS * 6 * 40)
    assert not voyage.losses.unaccounted


def test_what_was_kept_comes_ashore_once_though_deliveries_are_repeated(voyage: Any) -> None:
    ashore = voyage.ashore
    assert voyage.ship.link.repeated > 3
    assert ashore.repeated == 0
    assert ashore.kept == ashore.seen() - ashore.dropped()
    assert not ashore.unreadable


def test_nothing_stays_on_board_and_its_space_is_given_back(voyage: Any) -> None:
    assert not any(voyage.hours[-1].waiting.values())
    assert voyage.hours[-1].folder_bytes < voyage.ship.cap_bytes // 8


def test_hard_and_rare_predictions_are_kept_before_the_others(voyage: Any) -> None:
    dropped = voyage.sea[-1].dropped
    assert dropped["ordinary"] > 100_000
    assert not dropped["hard"] + dropped["windows"] + dropped["sketches"] + dropped["alarms"]


def test_the_verdict_of_what_was_kept_is_that_of_the_full_data(voyage: Any, vessel: Any) -> None:
    limits = vessel.voyage.LIMITS
    assert len(voyage.held) == DAYS * len(vessel.cargo.FEATURES)
    for held in voyage.held:
        assert held.found.verdict == held.exact.verdict(limits), held
    by_day = [held.found.verdict for held in voyage.held if held.feature == "temperature"]
    assert by_day == ["stable", "stable", "stable", "watch", "moved"]


def test_distances_by_what_was_kept_lie_within_the_stated_bounds(voyage: Any) -> None:
    beyond = [held for held in voyage.held if not held.exact.within_bounds(held.found)]
    assert len(beyond) <= 1, beyond  # the bounds hold at 99 % confidence, and draws can't be seeded


def test_the_device_said_the_same_at_sea(voyage: Any) -> None:
    assert list(voyage.ashore.verdicts.values()) == ["stable", "stable", "stable", "watch", "moved"]


def test_memory_stays_bounded_while_the_backlog_grows(voyage: Any) -> None:
    assert voyage.memory_grown_bytes < 64 * MB


def test_events_made_in_bulk_are_those_that_the_protocol_writes(vessel: Any) -> None:
    day = vessel.cargo.Cargo(1).day(0)
    bulk = vessel.events.predictions_of(day, range(200, 203))
    for event, place in zip(
        bulk, [(m, c) for m in range(200, 203) for c in range(40)], strict=True
    ):
        single = vessel.events.prediction_of(day, *place)
        assert event.payload() == single.payload()
        assert msgspec.structs.replace(event, data=single.data) == single


def test_an_hour_at_1_hz_is_reduced_to_minutes_whose_figures_are_those_of_numpy(
    vessel: Any,
) -> None:
    seconds = vessel.cargo.Cargo(1).seconds(0, hour=12)
    windows = vessel.hour.reduced(seconds)
    assert len(windows) == 60 * vessel.cargo.CONTAINERS
    assert vessel.hour.differing(windows, vessel.hour.expected(seconds)) == 0


def test_the_example_tells_the_story_of_a_day(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / "vessel.py", "--days", "1"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "ok  the cap holds at every moment" in done.stdout
    assert "NOT" not in done.stdout
    assert (tmp_path / "vessel-out" / "vessel.png").stat().st_size > 10_000
