"""What holds for groups and their pointers: listed in order, carried as they are, never lowered."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import ConflictError, InvalidInputError, NotFoundError
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.values import Action
from edgefleet.protocol.names import check_path
from edgefleet.protocol.pointer import read_pointer
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import AddDevice, ChannelConformance, DeviceEnd, enrolling

if TYPE_CHECKING:
    from collections.abc import Callable


class DeliveryRules(ChannelConformance):
    """Fixtures: ``deployer`` without groups, ``device_end``, ``foreign``; and ``add_device`` where
    the deployer lacks `CanEnroll`.
    """

    @pytest.fixture
    def deployer(self) -> Deployer:
        """A deployer without groups."""
        return self.lacks("deployer", "a deployer without groups for each test")

    @pytest.fixture
    def add_device(self, deployer: Deployer) -> AddDevice:
        """Makes a device part of the fleet."""
        return enrolling(self, deployer)

    @pytest.fixture
    def foreign(self) -> tuple[Callable[[str], None], Callable[[], None]]:
        """Plants somebody else's documents beside a pointer; asserts that they are untouched."""
        return self.lacks(
            "foreign",
            "a pair (plant, check): the first puts documents of others beside a group's pointer, "
            "the second asserts that they are as they were",
        )

    # Groups and devices

    def test_groups_and_devices_are_listed_in_order(
        self, deployer: Deployer, add_device: AddDevice
    ) -> None:
        """If this fails, a listing stops after its first page, or shows what isn't this fleet's."""
        for name, group in (("b", "line-4"), ("c", "line-3"), ("a", "line-3")):
            add_device(name, group=group)
        groups = deployer.groups()
        assert [group.name for group in groups] == ["line-3", "line-4"]
        assert [group.reference for group in groups] == [
            f"{deployer.name}/line-3", f"{deployer.name}/line-4",
        ]  # fmt: skip
        assert all(group.devices in (None, n) for group, n in zip(groups, (2, 1), strict=True))
        assert [device.name for device in deployer.devices()] == ["a", "b", "c"]
        assert [device.name for device in deployer.devices("line-3")] == ["a", "c"]
        assert deployer.device("b").group == "line-4"

    def test_what_is_not_there_is_not_found(
        self, deployer: Deployer, add_device: AddDevice
    ) -> None:
        """If this fails, your vendor's "not found" isn't mapped, or the cure lists nothing."""
        add_device("a", group="line-3")
        with pytest.raises(NotFoundError, match="groups there are: line-3"):
            deployer.group("line-4")
        with pytest.raises(NotFoundError):
            deployer.device("b")
        with pytest.raises(NotFoundError):
            deployer.publish("line-4", samples.pointer(1))
        with pytest.raises(NotFoundError):
            deployer.render("line-4", samples.pointer(1))

    def test_labels_are_set_removed_and_selected_by(
        self, deployer: Deployer, add_device: AddDevice
    ) -> None:
        """If this fails, labels of your vendor are lower-cased, cut, or replaced as a whole."""
        add_device("a", group="line-3", labels={"target": "x86-cpu", "site": "A 1"})
        add_device("b", group="line-3", labels={"target": "jetson-orin"})
        changed = deployer.label("a", {"site": None, "shift": "night"})
        assert changed.labels.items() >= {"target": "x86-cpu", "shift": "night"}.items()
        assert "site" not in changed.labels
        assert deployer.device("a").labels == changed.labels
        assert [d.name for d in deployer.devices(labels={"target": "jetson-orin"})] == ["b"]
        assert list(deployer.devices(labels={"site": "A 1"})) == []
        with pytest.raises(NotFoundError):
            deployer.label("c", {"shift": "night"})
        with pytest.raises(InvalidInputError):
            deployer.label("a", {"": "x"})

    # Pointers

    def test_a_pointer_arrives_as_published(
        self,
        deployer: Deployer,
        add_device: AddDevice,
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, the channel recodes the document, or mixes groups up."""
        add_device("a", group="line-3")
        add_device("b", group="line-4")
        assert deployer.pointer("line-3") is None
        assert device_end("a").pointer() is None
        pointer = samples.pointer(7, epoch=2)
        deployer.publish("line-3", pointer)
        assert deployer.pointer("line-3") == pointer
        arrived = device_end("a").pointer()
        assert arrived is not None
        assert read_pointer(arrived) == pointer
        assert deployer.pointer("line-4") is None
        assert device_end("b").pointer() is None

    def test_a_device_that_joins_later_finds_the_pointer(
        self,
        deployer: Deployer,
        add_device: AddDevice,
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, a pointer goes to the devices of the moment and not to the group."""
        add_device("a", group="line-3")
        deployer.publish("line-3", samples.pointer(1))
        add_device("late", group="line-3")
        arrived = device_end("late").pointer()
        assert arrived is not None
        assert read_pointer(arrived) == samples.pointer(1)

    def test_a_lower_pointer_is_refused(self, deployer: Deployer, add_device: AddDevice) -> None:
        """If this fails, an operator who missed a deployment takes the group back."""
        add_device("a", group="line-3")
        for pointer in (samples.pointer(5), samples.pointer(1, epoch=1)):
            deployer.publish("line-3", pointer)
            with pytest.raises(ConflictError):
                deployer.publish("line-3", samples.pointer(4))
            assert deployer.pointer("line-3") == pointer

    def test_the_same_pointer_again_changes_nothing(
        self, deployer: Deployer, add_device: AddDevice
    ) -> None:
        """If this fails, repeating a publish makes a new revision, which may restart things."""
        add_device("a", group="line-3")
        deployer.publish("line-3", samples.pointer(1))
        before = deployer.render("line-3", samples.pointer(1))
        deployer.publish("line-3", samples.pointer(1))
        assert deployer.render("line-3", samples.pointer(1)) == before
        assert deployer.pointer("line-3") == samples.pointer(1)

    def test_of_racing_pointers_the_highest_stays(
        self, deployer: Deployer, add_device: AddDevice
    ) -> None:
        """If this fails, publishing reads and writes without compare-and-swap between."""
        add_device("a", group="line-3")

        def publish(number: int) -> None:
            with suppress(ConflictError):
                deployer.publish("line-3", samples.pointer(number))

        samples.at_once([partial(publish, number) for number in range(1, samples.THREADS + 1)])
        assert deployer.pointer("line-3") == samples.pointer(samples.THREADS)

    def test_publishing_writes_what_was_rendered(
        self, deployer: Deployer, add_device: AddDevice
    ) -> None:
        """If this fails, a dry run shows other documents than a real one writes."""
        add_device("a", group="line-3")
        rendered = deployer.render("line-3", samples.pointer(1))
        assert deployer.pointer("line-3") is None, "rendering published"
        assert rendered
        paths = [check_path(document.path) for document in rendered]
        assert len(set(paths)) == len(paths)
        assert {document.action for document in rendered} != {Action.UNCHANGED}
        deployer.publish("line-3", samples.pointer(1))
        after = deployer.render("line-3", samples.pointer(1))
        assert [(d.path, d.content) for d in after] == [(d.path, d.content) for d in rendered]
        assert {document.action for document in after} == {Action.UNCHANGED}
        again = deployer.render("line-3", samples.pointer(2))
        assert Action.UPDATE in {document.action for document in again}
        assert deployer.pointer("line-3") == samples.pointer(1), "rendering published"

    def test_documents_of_others_are_left_alone(
        self,
        deployer: Deployer,
        add_device: AddDevice,
        foreign: tuple[Callable[[str], None], Callable[[], None]],
    ) -> None:
        """If this fails, publishing replaces a whole deployment, twin or folder, and with it what
        somebody else put there.
        """
        plant, check = foreign
        add_device("a", group="line-3")
        plant("line-3")
        deployer.publish("line-3", samples.pointer(1))
        check()
        deployer.publish("line-3", samples.pointer(2))
        check()
        assert [group.name for group in deployer.groups()] == ["line-3"]
