"""The devices' end of a channel, as the suites hold it: with one device's access and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from edgefleet.interfaces.abilities import CanEnroll
from edgefleet.testing.kit.gaps import Conformance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.protocol.event import Event
    from edgefleet.protocol.report import AccessReport


class DeviceEnd(Protocol):
    """What a device does over its channel; any `edgefleet_runtime` channel is one."""

    def pointer(self) -> bytes | None:
        """The latest pointer as it came."""

    def access(self) -> AccessReport:
        """Whether sources can be read and reports be written now."""

    def send_report(self, report: bytes, /) -> None:
        """Replace this device's report."""

    def send_hot(self, events: Sequence[Event], /) -> None:
        """Deliver alarms and health events."""

    def upload(self, name: str, path: Path, /) -> None:
        """Deliver a segment, ``name`` below the device's own prefix."""


class AddDevice(Protocol):
    """Makes a device part of the fleet."""

    def __call__(
        self, name: str, /, *, group: str, labels: Mapping[str, str] | None = None
    ) -> None: ...


def enrolling(suite: Conformance, deployer: Deployer) -> AddDevice:
    """Adds devices by the deployer's own enrolment; fails the suite where it has none."""
    if not isinstance(deployer, CanEnroll):
        suite.lacks("add_device", "makes a device part of the fleet; its runtime needn't run")

    def add(name: str, /, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        deployer.enroll(name, group=group, labels=labels)

    return add


class ChannelConformance(Conformance):
    """Base of the suites that play devices. The kit is the device: no runtime may run for it."""

    @pytest.fixture
    def device_end(self) -> Callable[[str], DeviceEnd]:
        """Gives a device's end of the channel, with that device's access."""
        return self.lacks(
            "device_end", "a callable that gives a device's end of the channel by its name"
        )
