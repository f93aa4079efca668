"""What the suites over a whole fleet share: fixtures, and a look behind the fleet's face.

No runtime runs here: the kit speaks for the devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.fleet import Fleet
from edgefleet.identity import group_key
from edgefleet.protocol.release import EMPTY, Release
from edgefleet.rollout.records import Stamp, encode_record, read_record, with_release
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import AddDevice, ChannelConformance, enrolling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.protocol.pointer import Pointer


class FleetFixtures(ChannelConformance):
    """Fixtures: ``fleet``, a fresh one, ``device_end``, and ``add_device`` where its first deployer
    lacks `CanEnroll`.
    """

    @pytest.fixture
    def fleet(self) -> Fleet:
        """A fleet without groups, models or state."""
        return self.lacks("fleet", "a fleet without groups, models or state for each test")

    @pytest.fixture
    def add_device(self, fleet: Fleet) -> AddDevice:
        """Makes a device part of the fleet; nothing may run for it."""
        return enrolling(self, first_deployer(fleet))

    @pytest.fixture
    def push(self, fleet: Fleet, tmp_path: Path) -> Callable[[str], ModelVersion]:
        """Pushes a new version of a model: other content at each call."""
        seeds = iter(range(1000))

        def push(name: str) -> ModelVersion:
            bundle = samples.bundle(tmp_path, next(seeds), size=400)
            return fleet.push(bundle, name, progress=False)

        return push

    @pytest.fixture
    def groups(self, add_device: AddDevice) -> tuple[str, str]:
        """Two groups of two devices."""
        for number, group in enumerate(("line-3", "line-4", "line-3", "line-4")):
            add_device(f"cam-{number}", group=group)
        return ("line-3", "line-4")

    @pytest.fixture
    def other(self, fleet: Fleet) -> Iterator[Fleet]:
        """The same fleet, as another notebook sees it."""
        with Fleet(fleet.profile) as other:
            yield other


def first_deployer(fleet: Fleet) -> Deployer:
    """The deployer under test: the first that the profile names."""
    return next(iter(fleet.deployers.values()))


def pointer_on(fleet: Fleet, group: str) -> Pointer:
    """The pointer on a group's channel."""
    found = first_deployer(fleet).pointer(group)
    assert found is not None, f"no pointer on {group}"
    return found


def release_of(fleet: Fleet, group: str) -> Release:
    """The release in force in a group."""
    digest = fleet.group_status(group).release
    return EMPTY if digest is None else fleet.registry.get_release(digest)


def lose(fleet: Fleet, key: str) -> None:
    """Lose a document of the state store."""
    stored = fleet.state.read(key)
    assert stored is not None, f"{key} was never written"
    fleet.state.delete(key, expect=stored.tag)


def write_ahead(fleet: Fleet, group: str) -> Pointer:
    """Write a group's record as an operator does who is killed before publishing it."""
    held = pointer_on(fleet, group)
    key = group_key(first_deployer(fleet).name, group)
    stored = fleet.state.read(key)
    assert stored is not None
    stamp = Stamp(
        fleet=held.fleet,
        epoch=held.epoch,
        number=held.number + 1,
        at=samples.MOMENT,
        actor="killed",
        sources=held.sources,
    )
    record = with_release(
        read_record(stored.data), EMPTY.digest, stamp, action="replace", models=()
    )
    fleet.state.write(key, encode_record(record), expect=stored.tag)
    assert record.pointer is not None
    return record.pointer
