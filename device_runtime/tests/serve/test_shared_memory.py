"""Shared memory holds against names, owners and sizes that are meant to harm."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.serve.triton import shared_object
from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet_runtime.serve.extensions.shared_memory import Region, SystemRegions

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.skipif(not SystemRegions.supported(), reason="no /dev/shm here")


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[SystemRegions]:
    regions = SystemRegions(max_bytes=1000, folder=tmp_path)
    yield regions
    regions.close()


def region(key: str, byte_size: int = 100, offset: int = 0) -> Region:
    return Region(name="r", key=key, offset=offset, byte_size=byte_size)


@pytest.mark.parametrize(
    "key", ["", "/", "..", "/..", "../secret", "a/b", "/a/../b", "a\0b", ".hidden", "x" * 300, "ä"]
)
def test_a_key_is_a_name_and_never_a_path(regions: SystemRegions, tmp_path: Path, key: str) -> None:
    (tmp_path.parent / "secret").write_bytes(bytes(100))
    with pytest.raises(InvalidInputError, match="can't be the key"):
        regions.register(region(key))


def test_links_folders_and_pipes_are_refused(regions: SystemRegions, tmp_path: Path) -> None:
    with shared_object(100, folder=tmp_path) as path:
        (tmp_path / "link").symlink_to(path)
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        for name in ("link", "folder", "pipe"):
            with pytest.raises(EdgeFleetError):
                regions.register(region(name))
    assert regions.status() == {}


def test_an_object_of_another_user_is_refused(
    regions: SystemRegions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared_object(100, folder=tmp_path) as path:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        with pytest.raises(AccessDeniedError, match="another user"):
            regions.register(region(path.name))


@pytest.mark.parametrize("offset,size", [(0, 101), (1, 100), (2**62, 2**62), (-1, 5), (0, 0)])
def test_a_region_lies_inside_its_object(
    regions: SystemRegions, tmp_path: Path, offset: int, size: int
) -> None:
    with shared_object(100, folder=tmp_path) as path, pytest.raises(InvalidInputError):
        regions.register(region(path.name, size, offset))


def test_reads_and_writes_stay_inside_the_region(regions: SystemRegions, tmp_path: Path) -> None:
    with shared_object(100, folder=tmp_path) as path:
        path.write_bytes(bytes(range(100)))
        regions.register(region(path.name, byte_size=50, offset=10))
        assert bytes(regions.read("r", 5, 2)) == bytes([15, 16])
        for offset, size in ((49, 2), (-1, 1), (0, 51), (2**70, 1)):
            with pytest.raises(InvalidInputError):
                regions.read("r", offset, size)
            with pytest.raises(InvalidInputError):
                regions.write("r", offset, size, b"1")
        with pytest.raises(InvalidInputError, match="don't fit"):
            regions.write("r", 0, 2, b"123")
        regions.write("r", 48, 2, b"zz")
        assert path.read_bytes()[58:61] == b"zz" + bytes([60])


def test_an_object_that_is_cut_short_is_an_error_and_nothing_worse(
    regions: SystemRegions, tmp_path: Path
) -> None:
    with shared_object(100, folder=tmp_path) as path:
        regions.register(region(path.name))
        os.truncate(path, 50)
        with pytest.raises(InvalidInputError, match="cut short"):
            regions.read("r", 40, 20)
        with pytest.raises(InvalidInputError, match="not inside"):
            regions.write("r", 40, 20, b"x" * 20)
        assert path.stat().st_size == 50


def test_one_tensor_has_a_limit(regions: SystemRegions, tmp_path: Path) -> None:
    with shared_object(5000, folder=tmp_path) as path:
        regions.register(region(path.name, byte_size=5000))
        with pytest.raises(LimitExceededError):
            regions.read("r", 0, 1001)


def open_files() -> list[Path]:
    """What this process has open; other threads open and close something at any moment."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(descriptor.readlink())
    return found


def test_what_is_unregistered_is_closed(regions: SystemRegions, tmp_path: Path) -> None:
    with shared_object(100, folder=tmp_path) as path:
        regions.register(region(path.name))
        assert open_files().count(path) == 1
        for _ in range(20):
            regions.unregister("r")
            regions.register(region(path.name))
        regions.unregister("r")
        regions.unregister("never there")
        assert path not in open_files()
    with pytest.raises(NotFoundError):
        regions.read("r", 0, 1)
