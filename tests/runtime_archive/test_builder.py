"""The archive: what is in it, that the same wheels make the same bytes, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import (
    ConfigurationError,
    IntegrityError,
    InvalidInputError,
    UnavailableError,
)
from edgefleet.runtime_archive import builder
from edgefleet.runtime_archive.builder import Built, build
from edgefleet.runtime_archive.fetching import _refused
from edgefleet.runtime_archive.manifest import read_manifest
from edgefleet.runtime_archive.packing import Member, pack_tar
from edgefleet.runtime_archive.target import PLATFORMS
from tests.runtime_archive.fakes import runtime_wheels, wheel


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return runtime_wheels(tmp_path / "wheels")


def made(wheels: Path, to: Path, platform: str = "linux-x86_64", **options: Any) -> Built:
    return build(platform, **{"extras": ["cpu"], "wheels": wheels, "output": to, **options})


def names(built: Built) -> list[str]:
    with tarfile.open(built.path) as archive:
        return archive.getnames()


def test_it_holds_what_a_device_installs_and_nothing_else(wheels: Path, tmp_path: Path) -> None:
    built = made(wheels, tmp_path)
    assert built.path == tmp_path / "edgefleet-runtime-0.1.0-linux-x86_64.tar.gz"
    assert names(built) == [
        "manifest.json",
        "requirements.lock",
        "device_check.py",
        "install.sh",
        "wheels/edgefleet-0.1.0-py3-none-any.whl",
        "wheels/edgefleet_runtime-0.1.0-py3-none-any.whl",
        "wheels/engine-3.0-cp39-abi3-manylinux_2_17_x86_64.whl",
        "wheels/fast-1.2-cp311-cp311-manylinux_2_28_x86_64.whl",
        "wheels/only_intel-1.0-py3-none-any.whl",
        "wheels/pip-1.0-py3-none-any.whl",
        "wheels/zstd_backport-1.0-py3-none-any.whl",
    ]
    assert f"sha256:{hashlib.sha256(built.path.read_bytes()).hexdigest()}" == built.digest
    assert read_manifest(built.path) == built.manifest
    assert (built.manifest.runtime, built.manifest.glibc) == ("0.1.0", "2.28")


def test_an_archive_for_another_machine_has_what_its_markers_ask_for(
    wheels: Path, tmp_path: Path
) -> None:
    built = made(wheels, tmp_path, "linux-aarch64", pythons=["3.12"])
    assert names(built)[4:] == [
        "wheels/edgefleet-0.1.0-py3-none-any.whl",
        "wheels/edgefleet_runtime-0.1.0-py3-none-any.whl",
        "wheels/engine-3.0-cp39-abi3-manylinux_2_17_aarch64.whl",
        "wheels/fast-1.2-cp312-cp312-manylinux_2_28_aarch64.whl",
        "wheels/only_arm-1.0-py3-none-any.whl",
        "wheels/pip-1.0-py3-none-any.whl",
    ]


def test_several_pythons_share_an_archive_and_a_lock(wheels: Path, tmp_path: Path) -> None:
    built = made(wheels, tmp_path, pythons=["3.12", "3.11"])
    assert built.manifest.pythons == ("3.11", "3.12")
    with tarfile.open(built.path) as archive:
        member = archive.extractfile("requirements.lock")
        assert member is not None
        lock = member.read().decode()
    assert 'zstd-backport==1.0 ; python_version == "3.11"' in lock
    fast = re.search(
        r"^fast==1\.2 \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.MULTILINE
    )
    assert fast is not None
    digests = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in wheels.glob("fast-1.2-cp31[12]-*-manylinux_2_28_x86_64.whl")
    }
    assert set(re.findall("[0-9a-f]{64}", fast[1])) == digests
    assert len(digests) == 2


def test_the_oldest_python_can_run_the_installer_too(wheels: Path, tmp_path: Path) -> None:
    wheel(wheels, "pip", "2.0", tag="cp312-abi3-linux_x86_64")
    built = made(wheels, tmp_path, pythons=["3.12", "3.11"])
    assert built.manifest.installer == "pip-1.0-py3-none-any.whl"
    assert [name for name in names(built) if "pip" in name] == ["wheels/pip-1.0-py3-none-any.whl"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_bound_of_another_machine_holds_there(tmp_path: Path, platform: str) -> None:
    """pip resolves for the machine it runs on, and so first takes the newest for one of them."""
    wheels = runtime_wheels(tmp_path / "wheels")
    machine = platform.partition("-")[2]
    needs = [f"tool<2; platform_machine == '{machine}'", "tool"]
    wheel(wheels, "edgefleet-runtime", "0.1.0", needs=needs)
    for version in ("1.9", "2.0"):
        wheel(wheels, "tool", version)
    built = made(wheels, tmp_path, platform, extras=[])
    assert "wheels/tool-1.9-py3-none-any.whl" in names(built)


def test_the_same_wheels_make_the_same_bytes(wheels: Path, tmp_path: Path) -> None:
    one = made(wheels, tmp_path / "one", pythons=["3.11", "3.12"])
    for path in wheels.iterdir():
        path.touch()
    wheel(wheels, "unneeded", "2.0")
    other = made(wheels, tmp_path / "other", pythons=["3.12", "3.11", "3.12"])
    assert one.path.read_bytes() == other.path.read_bytes()
    wheel(wheels, "only-intel", files={"only_intel.py": "new = True\n"})
    assert made(wheels, tmp_path / "third", pythons=["3.11", "3.12"]).digest != one.digest


def test_more_can_be_added_by_name_or_as_a_file(wheels: Path, tmp_path: Path) -> None:
    board = wheel(tmp_path / "board", "engine", "9.0", tag="cp311-cp311-linux_x86_64")
    built = made(wheels, tmp_path, extras=[], more=["unneeded", str(board)])
    found = [one.file for one in built.manifest.wheels]
    assert "unneeded-1.0-py3-none-any.whl" in found
    assert board.name in found
    assert built.manifest.more == ("engine==9.0", "unneeded")


def test_a_package_without_a_wheel_for_the_platform_is_named(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no wheel of fast") as caught:
        made(wheels, tmp_path / "out", pythons=["3.14"])
    assert "linux-x86_64, Python 3.14, glibc 2.31" in str(caught.value)
    assert "cure: put its wheel into the folder, or leave out the extra" in str(caught.value)
    with pytest.raises(ConfigurationError, match="no wheel of fast"):
        made(wheels, tmp_path / "out", glibc="2.27")
    for path in wheels.glob("only_arm-*"):
        path.unlink()  # which pip, on another machine, doesn't miss
    with pytest.raises(ConfigurationError, match="no wheel of only-arm"):
        made(wheels, tmp_path / "out", "linux-aarch64")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_python_is_refused(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="one Python at least"):
        made(wheels, tmp_path, pythons=[])


def test_our_own_wheels_have_an_address_where_the_folder_is_named_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(wanted: list[str], *_: object, **__: object) -> None:
        asked.extend(wanted)
        raise UnavailableError("that's all")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builder, "build_ours", lambda to: {"edgefleet-runtime": to / "ours.whl"})
    monkeypatch.setattr(builder, "download", download)
    with pytest.raises(UnavailableError, match="that's all"):
        build("linux-x86_64", extras=[], output=Path("archives"))
    assert asked[0].startswith(f"edgefleet-runtime @ file://{tmp_path}/archives/")


def test_an_index_that_is_away_is_told_from_a_missing_wheel() -> None:
    said = (
        "WARNING: Retrying after connection broken by 'NewConnectionError('…')'\n"
        "ERROR: No matching distribution found for numpy"
    )
    assert isinstance(_refused(said, "x", indexed=True), UnavailableError)
    assert isinstance(_refused(said, "x", indexed=False), ConfigurationError)
    conflict = "ERROR: Cannot install a and b because these conflict"
    assert "leave out one" in str(_refused(conflict, "x", indexed=True))
    unpinned = "no matching distributions available for your environment:\n    paho-mqtt\n"
    told = str(_refused(f"{conflict}\n{unpinned}", "x", indexed=True))
    assert "there is no wheel of paho-mqtt for x" in told
    assert "--with FILE" in told
    assert "went wrong" in str(_refused("ERROR: went wrong", "x", indexed=True))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path, packer = tmp_path / "runtime.tar.gz", zlib.compressobj(wbits=31)
    pack_tar([Member("manifest.json", bytes(200_000))], path)
    half = packer.compress(gzip.decompress(path.read_bytes())[:100_000])
    damaged = half + packer.flush(zlib.Z_FULL_FLUSH) + b"\7"
    for content in (b"", b"no archive", damaged):
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match="no archive of the runtime"):
            read_manifest(path)


def test_who_is_interrupted_leaves_nothing_and_keeps_what_was_there(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = made(wheels, tmp_path / "out").path
    before = there.read_bytes()
    wheel(wheels, "only-intel", files={"only_intel.py": "new = True\n"})

    def half(members: list[Member], to: Path) -> None:
        pack_tar(members[:2], to)
        raise KeyboardInterrupt

    monkeypatch.setattr(builder, "pack_tar", half)
    with pytest.raises(KeyboardInterrupt):
        made(wheels, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [there.name]
    assert there.read_bytes() == before
