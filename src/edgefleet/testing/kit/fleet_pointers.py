"""What holds for the pointers of a whole fleet: one counter, races, going back, cohorts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import NotFoundError, PolicyError
from edgefleet.fleet import Fleet
from edgefleet.identity import COUNTER_KEY, IDENTITY_KEY
from edgefleet.protocol.pointer import in_cohort
from edgefleet.protocol.release import EMPTY
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import DeviceEnd
from edgefleet.testing.kit.fleet_fixtures import (
    FleetFixtures,
    lose,
    pointer_on,
    release_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.values import ModelVersion


class PointerRules(FleetFixtures):
    """How a fleet's pointers are numbered, raced for, and taken back."""

    def test_pointers_of_all_groups_are_numbered_by_one_counter(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, two groups' pointers could carry one number, and a device that moves
        between them would refuse the newer.
        """
        made = []
        for group in (*groups, *groups):
            fleet.deploy(push("digits"), to=group)
            made.append(pointer_on(fleet, group))
        assert [pointer.number for pointer in made] == [1, 2, 3, 4]
        assert len({pointer.fleet for pointer in made}) == 1

    def test_two_operators_at_once_lose_no_edit(
        self,
        fleet: Fleet,
        other: Fleet,
        groups: tuple[str, str],
        push: Callable[[str], ModelVersion],
    ) -> None:
        """If this fails, the state store's compare-and-swap doesn't hold between two processes, or
        the deployer lets the loser's pointer overwrite the winner's.
        """
        group = groups[0]
        models = [push(f"model-{number}") for number in range(4)]
        deployments = samples.at_once(
            [
                partial((fleet, other)[number % 2].deploy, model, to=group)
                for number, model in enumerate(models)
            ]
        )
        assert release_of(fleet, group).models == release_of(other, group).models
        assert {model.name for model in release_of(fleet, group).models} == {
            model.name for model in models
        }
        numbers = [entry.number for entry in fleet.history(group)]
        assert len(set(numbers)) == len(numbers) == 4
        assert numbers == sorted(numbers, reverse=True)
        assert pointer_on(fleet, group).number == max(numbers)
        assert max(deployment.number for deployment in deployments) == max(numbers)

    def test_a_lost_counter_is_rebuilt_above_everything_seen(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, a fleet that lost its counter publishes numbers seen before."""
        for group in groups:
            fleet.deploy(push("digits"), to=group)
        highest = pointer_on(fleet, groups[1]).pair
        lose(fleet, COUNTER_KEY)
        fleet.deploy(push("digits"), to=groups[0])
        pointer = pointer_on(fleet, groups[0])
        assert pointer.pair > highest
        assert pointer.epoch == highest[0] + 1

    def test_a_counter_is_rebuilt_above_what_devices_report(
        self,
        fleet: Fleet,
        groups: tuple[str, str],
        push: Callable[[str], ModelVersion],
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, reports aren't looked at, and a device may know more than the operator."""
        fleet.deploy(push("digits"), to=groups[0])
        ahead = samples.pointer(900, epoch=3)
        device_end("cam-1").send_report(samples.report(ahead).encoded())
        lose(fleet, COUNTER_KEY)
        fleet.deploy(push("digits"), to=groups[0])
        assert pointer_on(fleet, groups[0]).pair > ahead.pair

    def test_a_lost_identity_is_recovered_from_the_channels(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, the fleet becomes another one, and its devices refuse every pointer."""
        fleet.deploy(push("digits"), to=groups[0])
        before = pointer_on(fleet, groups[0]).fleet
        for key in (IDENTITY_KEY, *list(fleet.state.keys("groups/"))):
            lose(fleet, key)
        fleet.deploy(push("digits"), to=groups[1])
        assert pointer_on(fleet, groups[1]).fleet == before

    def test_rolling_back_is_a_higher_pointer_to_the_old_release(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, an old pointer is published again, which devices refuse."""
        pointers = []
        for _ in range(2):
            fleet.deploy(push("digits"), to=groups[0])
            pointers.append(pointer_on(fleet, groups[0]))
        fleet.rollback(groups[0])
        back = pointer_on(fleet, groups[0])
        assert back.current == pointers[0].current
        assert back.pair > pointers[1].pair

    def test_a_second_rollback_goes_further(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, two rollbacks end where they began."""
        releases = [EMPTY.digest]
        for _ in range(3):
            fleet.deploy(push("digits"), to=groups[0])
            releases.append(pointer_on(fleet, groups[0]).current)
        for wanted in reversed(releases[:-1]):
            fleet.rollback(groups[0])
            assert pointer_on(fleet, groups[0]).current == wanted
        with pytest.raises(PolicyError):
            fleet.rollback(groups[0])

    def test_a_cohort_tries_a_release_before_the_rest(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, a canary is more than one write of the group's pointer."""
        group = groups[0]
        fleet.deploy(push("digits"), to=group)
        stable = pointer_on(fleet, group).current
        canary = fleet.deploy(push("digits"), to=group, cohort_permille=500)
        pointer = pointer_on(fleet, group)
        assert pointer.current == stable
        assert pointer.next is not None
        assert pointer.next.release == canary.release
        for device in ("cam-0", "cam-2"):
            taken = pointer.release_for(device)
            assert taken == (canary.release if in_cohort(pointer.next.cohort, device) else stable)
        canary.promote()
        promoted = pointer_on(fleet, group)
        assert (promoted.current, promoted.next) == (canary.release, None)
        assert promoted.pair > pointer.pair

    def test_a_cancelled_cohort_goes_back(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, aborting a wave leaves some device on the candidate."""
        group = groups[0]
        fleet.deploy(push("digits"), to=group)
        stable = pointer_on(fleet, group)
        fleet.deploy(push("digits"), to=group, cohort_permille=1000).cancel()
        cancelled = pointer_on(fleet, group)
        assert cancelled.pair > stable.pair
        assert {cancelled.release_for(f"cam-{n}") for n in range(4)} == {stable.current}
        with pytest.raises(NotFoundError):
            fleet.promote(group)
