"""A disk without room keeps a device from no runtime for good."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from device_runtime.tests.upgrade.fake_runtime import FolderChannel
from device_runtime.tests.upgrade.rig import Device
from edgefleet.errors import IntegrityError, StorageFullError
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet_runtime.upgrade.installing import FETCHED, INSTALLED, Installer
from edgefleet_runtime.upgrade.offers import Wanted, own_platform, wanted
from edgefleet_runtime.upgrade.places import Places


def install(device: Device, monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    """Install what is offered, on a disk that has room for so many archives: at first, and then."""
    size = offered(device).archive.size
    left: Iterator[int] = iter(free)
    install_where(device, monkeypatch, lambda: next(left) * size)


def install_where(device: Device, monkeypatch: pytest.MonkeyPatch, free: Callable[[], int]) -> None:
    """The same with what tells how many bytes are free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free()))
    places, channel = Places(device.home, "old"), FolderChannel(device.fleet)
    Installer(places, channel, stopped=lambda _: False).install(offered(device))


def offered(device: Device) -> Wanted:
    found = wanted(
        FolderChannel(device.fleet).offered_runtime(),
        device="cam-1",
        machine=own_platform(),
        own="old",
        kept=None,
    )
    assert found is not None
    return found


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


def test_what_was_fetched_before_needs_no_room_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = device.archive("0.2.0")
    name = device.offer("0.2.0", archive)
    partial = device.home / "archives" / "partial"
    partial.mkdir(parents=True)
    (partial / hex_of(digest_of(archive))).write_bytes(archive)  # all but the rename
    with pytest.raises(StorageFullError):
        install(device, monkeypatch, FETCHED + INSTALLED - 2)
    partial.mkdir(parents=True)
    (partial / hex_of(digest_of(archive))).write_bytes(archive)
    install(device, monkeypatch, FETCHED + INSTALLED - 1)
    assert name in left(device)


def test_what_a_killed_installation_left_is_gone_before_room_is_looked_for(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = device.offer("0.2.0", device.archive("0.2.0"))
    others = [device.home / "unpacked" / "wheels", device.home / "versions" / name / "lib"]
    others.append(device.home / "archives" / "blobs" / "sha256")
    for folder in others:
        folder.mkdir(parents=True)
        (folder / ("0" * 64)).write_text("left")
    found: list[Path] = []

    def free() -> int:
        found.extend(path for folder in others if folder.exists() for path in folder.iterdir())
        return 1 << 40

    install_where(device, monkeypatch, free)
    assert not found
