"""What the builder makes is what a device's own upgrade installs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from device_runtime.tests.upgrade.fake_runtime import FolderChannel
from edgefleet.protocol.digest import blob_path
from edgefleet.protocol.gateway import Archive
from edgefleet.runtime_archive.builder import Built
from edgefleet.runtime_archive.target import PYTHONS
from edgefleet_runtime.upgrade.installing import INSTALLED, Installer
from edgefleet_runtime.upgrade.offers import Wanted, own_platform
from edgefleet_runtime.upgrade.places import Places

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="devices have Linux"),
]


def without_a_python_that_fits(folder: Path) -> str:
    """A PATH on which the device's own Python isn't found."""
    folder.mkdir()
    for name in ("python3", *(f"python{version}" for version in PYTHONS)):
        (folder / name).write_text("#!/bin/sh\necho it is another\nexit 1\n")
        (folder / name).chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def test_a_device_installs_the_real_runtime_beside_its_own(
    real: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = tmp_path / "fleet"
    monkeypatch.setenv("PATH", without_a_python_that_fits(tmp_path / "others"))
    blob = fleet / blob_path(real.digest)
    blob.parent.mkdir(parents=True)
    shutil.copyfile(real.path, blob)
    (tmp_path / "versions").mkdir()
    assert real.manifest.platform == own_platform()
    places = Places(tmp_path, "old")
    wanted = Wanted(
        archive=Archive(digest=real.digest, size=real.size),
        name="new",
        runtime=real.manifest.runtime,
        order="",
    )
    for _ in range(2):  # the same again changes nothing
        Installer(places, FolderChannel(fleet), stopped=lambda _: False).install(wanted)
    assert places.installed("new")
    taken = sum(path.lstat().st_size for path in places.version("new").rglob("*"))
    assert real.manifest.unpacked_bytes < taken < INSTALLED * real.size
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"fleet", "install.lock", "others", "versions"}
