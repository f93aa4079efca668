"""What ends a device's work reaches whoever runs the device, and nobody else's device."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from edgefleet_aws.cloud.core_device import Cloud
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_aws.cloud.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_aws.cloud.components import Component
    from edgefleet_aws.cloud.core_device import CoreFacts
    from edgefleet_aws.cloud.deployments import Deployment

FELL = "the cloud fell down"
TIMEOUT_S = 90.0


class FragileCloud(Cloud):
    """A cloud that wants nothing, and fails for the devices named in ``down``."""

    region = "eu-central-1"

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.failed = threading.Event()

    def online(self, thing: str) -> bool:
        if thing in self.down:
            self.failed.set()
            raise LookupError(FELL)
        return True

    def wanted(self, thing: str) -> list[Deployment]:
        return []

    def report(self, thing: str, deployment: Deployment, status: str, reason: str = "") -> None: ...

    def component(self, name: str, version: str) -> Component | None:
        return None

    def artifact(self, address: str) -> bytes | None:
        return None

    def publish(self, thing: str, topic: str, payload: bytes) -> None: ...

    def subscribe(
        self,
        thing: str,
        topic_filter: str,
        received: Callable[[str, bytes], None],
    ) -> Callable[[], None]:
        return lambda: None

    def keys(self, thing: str) -> Mapping[str, str]:
        return {}

    def is_up(self, thing: str, facts: CoreFacts) -> None: ...


@pytest.fixture
def cloud() -> FragileCloud:
    return FragileCloud()


@pytest.fixture
def site(tmp_path: Path, cloud: FragileCloud) -> Site:
    """Two devices that have power, one of each kind."""
    site = Site(tmp_path, cloud, lambda: {"PATH": os.environ["PATH"]})
    site.add("cam-1", Kind.CLASSIC, {})
    site.add("cam-2", Kind.LITE, {})
    return site


def fall(cloud: FragileCloud, site: Site) -> None:
    """Let the work of cam-1 end by an error."""
    cloud.down.add("cam-1")
    site.wake()
    assert cloud.failed.wait(TIMEOUT_S)


def test_stopping_raises_what_ended_a_devices_work_once_all_are_off(
    cloud: FragileCloud, site: Site
) -> None:
    fall(cloud, site)
    other = site.nucleus("cam-2")
    with pytest.raises(LookupError, match=FELL):
        site.stop()
    assert not other.on
    site.stop()


def test_powering_a_device_off_raises_what_ended_its_work_once(
    cloud: FragileCloud, site: Site
) -> None:
    fall(cloud, site)
    with pytest.raises(LookupError, match=FELL):
        site.power_off("cam-1")
    assert not site.nucleus("cam-1").on
    site.stop()


def test_waiting_for_a_device_raises_what_ended_its_work(cloud: FragileCloud, site: Site) -> None:
    site.settle("cam-2")
    fall(cloud, site)
    with pytest.raises(LookupError, match=FELL):
        site.settle("cam-1")
    site.power_off("cam-2")


def test_a_device_that_works_is_stopped_without_an_error(site: Site) -> None:
    site.settle("cam-1")
    site.stop()
