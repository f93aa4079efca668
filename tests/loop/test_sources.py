"""What the fleet itself gives a loop: drift, samples, labels."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from edgefleet.analysis.dataset_versions import read_versions
from edgefleet.loop.fleet_sources import FleetSources
from edgefleet.loop.spec import DatasetSpec
from edgefleet.protocol.event import Sample, new_event
from tests.loop.captured import capture, label, segment
from tests.loop.world import GROUP, START

if TYPE_CHECKING:
    from tests.loop.world import World

HOUR = timedelta(hours=1)


@pytest.fixture
def sources(world: World) -> FleetSources:
    return FleetSources(world.fleet, world.folder / "labelled")


def test_without_samples_and_labels_there_are_none(sources: FleetSources) -> None:
    found = sources.samples("signs", [GROUP], None, DatasetSpec(), remembered=True)
    assert (len(found.ids), found.total) == (0, 0)
    assert sources.labelled("signs", [GROUP], None) == 0
    assert sources.new_labels("signs", [GROUP], None) == 0


def test_samples_come_with_what_people_said_of_them(world: World, sources: FleetSources) -> None:
    known = capture(world, 20, at=START)
    label(world, known[:15], at=START)
    found = sources.samples("signs", [GROUP], None, DatasetSpec(), remembered=True)
    assert (len(found.ids), found.total) == (15, 20)
    assert dict(zip(found.ids, found.labels.tolist(), strict=True)) == dict(known[:15])
    assert (found.inputs["x"].shape, found.inputs["x"].dtype) == ((15, 2), np.dtype(np.float32))


def test_the_same_samples_are_the_same_version(world: World, sources: FleetSources) -> None:
    label(world, capture(world, 10, at=START), at=START)
    first, again = (
        sources.samples("signs", [GROUP], None, DatasetSpec(), remembered=True) for _ in range(2)
    )
    assert first.version == again.version
    label(world, capture(world, 10, at=START, seed=2), at=START)
    assert (
        sources.samples("signs", [GROUP], None, DatasetSpec(), remembered=True).version
        != first.version
    )


def test_samples_without_a_label_take_no_place_of_others(
    world: World, sources: FleetSources
) -> None:
    """Newer ones, and more of them: neither the bound nor the balance counts them."""
    known = capture(world, 12, at=START)
    label(world, known, at=START)
    capture(world, 30, at=START + HOUR, seed=2)
    spec = DatasetSpec(most=10, balance=True)
    found = sources.samples("signs", [GROUP], None, spec, remembered=True)
    assert set(found.ids) <= {one for one, _ in known}
    assert (found.total, sorted(found.labels.tolist())) == (42, [0] * 5 + [1] * 5)


def test_what_is_only_compared_on_is_no_version_to_remember(
    world: World, sources: FleetSources
) -> None:
    label(world, capture(world, 10, at=START), at=START)
    found = sources.samples("signs", [GROUP], None, DatasetSpec(), remembered=False)
    assert found.reference == found.version
    assert read_versions(world.fleet.state, "signs") == ()
    kept = sources.samples("signs", [GROUP], None, DatasetSpec(), remembered=True)
    assert (kept.version, kept.reference) == (found.version, "signs:1")


def test_samples_of_other_groups_devices_do_not_count(world: World, sources: FleetSources) -> None:
    world.fleet.enroll("cam-99", group="line-4")
    label(world, capture(world, 5, at=START, device="cam-99"), at=START)
    label(world, capture(world, 7, at=START, seed=2), at=START)
    assert sources.labelled("signs", [GROUP], None) == 7
    assert len(sources.samples("signs", [GROUP], None, DatasetSpec(), remembered=True).ids) == 7


@pytest.mark.parametrize(
    "said", [b'{"model": 7}', b'{"version": 1, "requires": ["of-tomorrow"]}', b"[]"]
)
def test_an_event_that_cannot_be_read_holds_nobody_up(
    world: World, sources: FleetSources, said: bytes
) -> None:
    label(world, capture(world, 4, at=START), at=START)
    sample = Sample(model="signs", model_version="1", reason="all", inputs={})
    event = new_event(sample, time=START)
    broken = msgspec.structs.replace(event, data=msgspec.Raw(said))
    segment(world, [broken], at=START, name="broken")
    assert sources.labelled("signs", [GROUP], None) == 4
    with pytest.warns(RuntimeWarning, match="1 malformed"):
        assert len(sources.samples("signs", [GROUP], None, DatasetSpec(), remembered=True).ids) == 4


def test_captures_and_labels_are_counted_by_their_own_times(
    world: World, sources: FleetSources
) -> None:
    early = capture(world, 5, at=START)
    late = capture(world, 3, at=START + 2 * HOUR, seed=2)
    label(world, early, at=START + 3 * HOUR)
    label(world, late, at=START + 2 * HOUR)
    assert sources.labelled("signs", [GROUP], START + HOUR) == 3
    assert sources.new_labels("signs", [GROUP], START + 2 * HOUR) == 5


def test_without_windows_nothing_is_known_of_drift(sources: FleetSources) -> None:
    found = sources.drift("signs:1", [GROUP], None)
    assert (found.moved, dict(found.devices)) == ((), {})
