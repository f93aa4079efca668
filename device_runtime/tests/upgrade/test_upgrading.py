"""A device becomes another runtime, or stays what it was: archives, processes, start script."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from device_runtime.tests.upgrade.rig import Device
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet_runtime.upgrade.upgrader import RESTART


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def versions(device: Device) -> set[str]:
    return {path.name for path in (device.home / "versions").iterdir()}


def fetched(device: Device) -> set[str]:
    return {path.name for path in device.home.iterdir()} & {"archives", "unpacked"}


def test_a_device_becomes_the_runtime_that_is_offered(device: Device) -> None:
    new = device.offer("0.2.0", device.archive("0.2.0"))
    assert device.settle() == [RESTART, 0]
    assert device.current == new
    assert not (device.home / "trial").exists()
    assert device.reverted is None
    assert device.settle() == [0]


def test_the_runtime_before_is_kept_and_older_ones_go(device: Device) -> None:
    first = device.offer("0.2.0", device.archive("0.2.0"))
    device.settle()
    assert versions(device) == {"old", first}
    second = device.offer("0.3.0", device.archive("0.3.0"))
    device.settle()
    assert versions(device) == {first, second}
    assert not fetched(device)


def test_one_that_dies_is_started_three_times_and_never_again(device: Device) -> None:
    archive = device.archive("0.2.0", mood="dies")
    new = device.offer("0.2.0", archive)
    assert device.settle() == [RESTART, 1, 1, 1, 0]
    assert device.current == "old"
    assert device.reverted is not None
    assert device.reverted.runtime == "0.2.0"
    assert device.reverted.reason == "it ended 3 times before it was well"
    assert new not in versions(device)
    assert device.settle() == [0]
    device.offer("0.2.0", archive, permille=999)
    assert device.settle() == [0]
    device.offer("0.2.0", archive, salt="another order")
    assert device.settle() == [RESTART, 1, 1, 1, 0]


@pytest.mark.parametrize(
    "mood, why", [("deaf", "it didn't reach its fleet"), ("idle", "it didn't serve")]
)
def test_one_that_isn_t_well_gives_itself_up(device: Device, mood: str, why: str) -> None:
    device.offer("0.2.0", device.archive("0.2.0", mood=mood))
    assert device.settle() == [RESTART, RESTART, 0]
    assert device.current == "old"
    assert device.reverted is not None
    assert device.reverted.reason.startswith(why)
    assert device.settle() == [0]


def test_a_disk_that_takes_nothing_keeps_no_runtime_from_starting(device: Device) -> None:
    """What became of the new one is noted when there is room again; it isn't tried meanwhile."""
    new = device.offer("0.2.0", device.archive("0.2.0", mood="dies"))
    assert [device.start() for _ in range(4)] == [RESTART, 1, 1, 1]
    blocked = device.home / ".upgrade.json.partial"
    blocked.mkdir()
    assert device.start() == 0
    assert device.current == "old"
    assert "ended" not in (device.home / "upgrade.json").read_text()
    blocked.rmdir()
    assert device.start() == 0
    assert device.reverted is not None
    assert new not in versions(device)


def test_after_a_failure_another_runtime_is_taken(device: Device) -> None:
    device.offer("0.2.0", device.archive("0.2.0", mood="dies"))
    device.settle()
    good = device.offer("0.2.1", device.archive("0.2.1"))
    device.settle()
    assert device.current == good
    assert device.reverted is None


@pytest.mark.parametrize(
    "first, says, why",
    [
        ("echo 'error: no Python here' >&2; exit 1", None, "it can't be installed: error: no Pyth"),
        ("exit 0", None, "its install script left no runtime"),
        ("", "0.1.9", "and not '0.2.0'"),
    ],
)
def test_one_that_can_t_be_installed_is_never_started(
    device: Device, first: str, says: str | None, why: str
) -> None:
    device.offer("0.2.0", device.archive("0.2.0", first=first, says=says))
    assert device.settle() == [0]
    assert device.reverted is not None
    assert why in device.reverted.reason
    assert not (device.home / "trial").exists()
    assert versions(device) == {"old"}
    assert not fetched(device)


def test_what_another_gave_in_its_place_is_no_fault_of_the_runtime(device: Device) -> None:
    """The mirror is mended later; then the same order is followed."""
    archive = device.archive("0.2.0")
    new = device.offer("0.2.0", archive)
    blob = device.fleet / blob_path(digest_of(archive))
    blob.write_bytes(archive[:-1] + b"x")
    assert device.start() == 1  # `UnavailableError` ends the fake
    assert device.reverted is None
    blob.write_bytes(archive)
    device.settle()
    assert device.current == new


@pytest.mark.parametrize("turn", [0, 1], ids=["the old one", "the new one"])
def test_killed_at_any_step_the_old_runtime_or_the_new_one_stands(
    tmp_path: Path, turn: int
) -> None:
    ended, count = -9, 0
    while ended == -9:
        count += 1
        home = tmp_path / str(count)
        home.mkdir()
        device = Device(home)
        new = device.offer("0.2.0", device.archive("0.2.0"))
        if turn:
            assert device.start() == RESTART
        ended = device.start(f"*:{count}")
        assert device.current in {"old", new}
        device.settle()
        assert device.current == new, f"step {count}"
        assert device.reverted is None
    assert count > (2 if turn else 10)


def test_an_installation_that_outlives_its_runtime_is_waited_for(device: Device) -> None:
    began, gate = device.home / "began", device.home / "gate"
    os.mkfifo(gate)
    first = f"echo once >>'{began}'; read -r _ <'{gate}'"
    new = device.offer("0.2.0", device.archive("0.2.0", first=first))
    assert device.start(until=began.exists) == -9
    with ThreadPoolExecutor(1) as pool:
        settled = pool.submit(device.settle)
        gate.write_text("go on\n")
        assert settled.result() == [RESTART, 0]
    assert device.current == new
    assert began.read_text() == "once\n"


# ------------------------------------------------------------------------------------ archives


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def damaged(size: int) -> bytes:
    """An archive that nothing unpacks beyond so many bytes."""
    packer = zlib.compressobj(wbits=31)
    whole = gzip.decompress(packed((info("install.sh"), bytes(100_000))))
    return packer.compress(whole[:size]) + packer.flush(zlib.Z_FULL_FLUSH) + b"\7"


@pytest.mark.parametrize(
    "archive, why",
    [
        (packed((info("../../evil"), b"x")), "unsafe"),
        (packed((info("/tmp/evil"), b"x")), "unsafe"),
        (packed((info("out", tarfile.SYMTYPE, "../.."), b"")), "no plain file"),
        (packed((info("out", tarfile.LNKTYPE, "../../current"), b"")), "no plain file"),
        (packed((info("pipe", tarfile.FIFOTYPE), b"")), "no plain file"),
        (packed((info("a"), b"x"), (info("a"), b"y")), "no archive"),
        (packed((info("zeros"), bytes(200 << 20))), "holds too much"),
        (b"no archive at all", "no archive"),
        (packed((info("install.sh"), b"x" * 99))[:-20], "no archive"),
        (damaged(100), "no archive"),
        (damaged(50_000), "no archive"),
    ],
    ids=[
        *("dots", "absolute", "link", "hard link", "pipe", "twice", "bomb", "none", "cut"),
        *("damaged at once", "damaged later"),
    ],
)
def test_an_archive_that_reaches_out_is_refused(device: Device, archive: bytes, why: str) -> None:
    """Its digest is right: whoever may order runtimes made it, maybe unknowingly."""
    device.offer("0.2.0", archive)
    assert device.settle() == [0]
    assert device.reverted is not None
    assert why in device.reverted.reason
    assert not (device.home / "evil").exists()
    assert device.current == "old"
    assert not fetched(device)
