"""A disk without room keeps a device from no runtime for good."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from device_runtime.tests.upgrade.fake_runtime import FolderChannel
from device_runtime.tests.upgrade.rig import Device
from edgefleet.errors import IntegrityError, StorageFullError
from edgefleet_runtime.upgrade.installing import FETCHED, INSTALLED, Installer
from edgefleet_runtime.upgrade.offers import own_platform, wanted
from edgefleet_runtime.upgrade.places import Places


def install(device: Device, monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    """Install what is offered, on a disk that has room for so many archives: at first, and then."""
    places, channel = Places(device.home, "old"), FolderChannel(device.fleet)
    found = wanted(
        channel.offered_runtime(), device="cam-1", machine=own_platform(), own="old", kept=None
    )
    assert found is not None
    left: Iterator[int] = iter(free)
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda _: SimpleNamespace(free=next(left) * found.archive.size),
    )
    Installer(places, channel, stopped=lambda _: False).install(found)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def left(device: Device) -> set[str]:
    names = {"archives", "unpacked"} & {path.name for path in device.home.iterdir()}
    return names | {path.name for path in (device.home / "versions").iterdir()}


def test_nothing_is_fetched_without_room_for_all_of_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.offer("0.2.0", device.archive("0.2.0"))
    with pytest.raises(StorageFullError, match="make room"):
        install(device, monkeypatch, FETCHED + INSTALLED - 1)
    assert left(device) == {"old"}


@pytest.mark.parametrize(
    "free, kind",
    [(INSTALLED, IntegrityError), (INSTALLED - 1, StorageFullError)],
    ids=["room", "no room"],
)
def test_an_installation_that_ran_out_of_room_is_told_from_one_that_failed(
    device: Device, monkeypatch: pytest.MonkeyPatch, free: int, kind: type[Exception]
) -> None:
    device.offer("0.2.0", device.archive("0.2.0", first="exit 1"))
    with pytest.raises(kind):
        install(device, monkeypatch, FETCHED + INSTALLED, free)
    assert left(device) == {"old"}
