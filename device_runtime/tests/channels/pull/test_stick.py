"""A stick that is put in, pulled out, full, locked or not what it seems."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trustme

from device_runtime.tests.channels.pull.standin import FLEET, Enrolled
from edgefleet.errors import (
    AccessDeniedError,
    IntegrityError,
    StorageFullError,
    UnavailableError,
)
from edgefleet.protocol.digest import blob_path, digest_of, digest_of_file
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.event import HealthEvent, new_event
from edgefleet.protocol.stick import (
    FOLDER,
    MEMBERS,
    POINTER,
    RECEIPT_SUFFIX,
    RECEIPTS,
    Members,
    Receipt,
    SignedReceipt,
    members_path,
    signed_bytes,
)
from edgefleet.testing.kit import samples
from edgefleet_runtime.channels.pull.channel import PullChannel
from edgefleet_runtime.channels.pull.from_stick import StickChannel

POINTED = b'{"a pointer": 1}'
NAME = "segments/2026-11-22/0001.ndjson.zst"


class Stick:
    """What somebody carries, and where it is mounted."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "usb"
        self.mount.mkdir()
        self._away = folder / "pocket"
        self._away.mkdir()
        (self._away / FOLDER).mkdir()
        self.root = self.mount / FOLDER
        self.own = self.root / RECEIPTS / "cam-07"

    def put_in(self) -> None:
        (self._away / FOLDER).rename(self.root)

    def pull_out(self) -> None:
        self.root.rename(self._away / FOLDER)

    def receipt(self, path: str) -> tuple[Receipt, SignedReceipt]:
        data = (self.own / (path + RECEIPT_SUFFIX)).read_bytes()
        signed = decode(SignedReceipt, data)
        return decode(Receipt, signed.receipt), signed


@pytest.fixture
def stick(tmp_path: Path) -> Stick:
    found = Stick(tmp_path)
    found.put_in()
    return found


@pytest.fixture
def channel(stick: Stick) -> StickChannel:
    return StickChannel("cam-07", stick.mount, interval_s=0.01)


def test_a_stick_brings_the_pointer_and_wakes_the_device(tmp_path: Path) -> None:
    stick = Stick(tmp_path)
    found = PullChannel.from_options({"media": str(stick.mount)}, device="cam-07")
    assert found.pointer() is None
    assert found.access().state == "unknown"
    assert "no stick" in str(found.access().detail)
    assert not found.wait(0)
    (tmp_path / "pocket" / FOLDER / "pointer.json").write_bytes(b'{"a pointer": 1}')
    stick.put_in()
    assert found.wait(60)
    assert found.pointer() == b'{"a pointer": 1}'
    assert found.access().state == "ok"
    stick.pull_out()
    assert found.wait(60)
    assert found.pointer() is None


def test_blobs_come_from_it_and_links_are_none(stick: Stick, channel: StickChannel) -> None:
    (address,) = channel.addresses()
    source = channel.source(address)
    assert source is not None
    digest = digest_of(b"a model")
    path = stick.root / blob_path(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a model")
    with source.open(digest, 2) as stream:
        assert stream.read(100) == b"model"
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(IntegrityError):
        source.open(digest, 0)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(IntegrityError):
        source.open(digest, 0)
    stick.pull_out()
    with pytest.raises(UnavailableError):
        source.open(digest, 0)
    assert channel.source("https://elsewhere.example") is None


def test_what_the_device_has_to_say_lies_beside_a_receipt(
    stick: Stick, channel: StickChannel, tmp_path: Path
) -> None:
    segment = tmp_path / "segment"
    segment.write_bytes(b"events" * 1000)
    channel.send_report(b'{"sequence":1}')
    channel.upload(NAME, segment)
    channel.send_hot([new_event(HealthEvent(what="started", message="here"))])
    assert (stick.own / "report.json").read_bytes() == b'{"sequence":1}'
    assert (stick.own / "files" / NAME).read_bytes() == segment.read_bytes()
    (hot,) = (path for path in (stick.own / "hot").iterdir() if RECEIPT_SUFFIX not in path.name)
    assert json.loads(hot.read_bytes())[0]["type"]
    for path in ("report.json", f"files/{NAME}", f"hot/{hot.name}"):
        receipt, signed = stick.receipt(path)
        assert (receipt.device, receipt.path) == ("cam-07", path)
        assert (receipt.digest, receipt.size) == digest_of_file(stick.own / path)
        assert (signed.signature, signed.certificate) == (None, None)
    assert not list(stick.root.rglob("*.partial"))


def test_with_an_identity_receipts_are_signed(stick: Stick, authority: trustme.CA) -> None:
    keys = Enrolled(authority, "https://gateway.example")
    StickChannel("cam-07", stick.mount, keys).send_report(b"{}")
    receipt, signed = stick.receipt("report.json")
    assert receipt.fleet == FLEET
    assert signed.signature == keys.sign(signed_bytes(signed.receipt))
    assert signed.certificate == keys.identity.certificate


def test_the_same_again_changes_nothing_and_another_replaces_it(
    stick: Stick, channel: StickChannel
) -> None:
    for body in (b"one", b"one", b"two"):
        channel.send_report(body)
    assert (stick.own / "report.json").read_bytes() == b"two"
    assert stick.receipt("report.json")[0].digest == digest_of(b"two")
    assert len(list(stick.own.iterdir())) == 2


def test_nothing_is_written_where_no_stick_is(
    stick: Stick, channel: StickChannel, tmp_path: Path
) -> None:
    stick.pull_out()
    with pytest.raises(UnavailableError, match="no stick"):
        channel.send_report(b"{}")
    with pytest.raises(UnavailableError, match="no stick"):
        channel.upload(NAME, Path(__file__))
    assert not list(stick.mount.iterdir())


@pytest.mark.parametrize("place", ["receipts", "receipts/cam-07", "receipts/cam-07/files"])
def test_links_on_a_stick_lead_nowhere(
    stick: Stick, channel: StickChannel, tmp_path: Path, place: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = stick.root / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(UnavailableError):
        channel.upload(NAME, Path(__file__))
    assert not list(outside.iterdir())


def test_files_that_are_links_are_replaced_and_not_followed(
    stick: Stick, channel: StickChannel, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    stick.own.mkdir(parents=True)
    for name in ("report.json", ".report.json.partial"):
        (stick.own / name).symlink_to(precious)
    channel.send_report(b"{}")
    assert precious.read_bytes() == b"mine"
    assert (stick.own / "report.json").read_bytes() == b"{}"


def test_a_pointer_that_is_a_link_is_not_read(stick: Stick, channel: StickChannel) -> None:
    (stick.root / "pointer.json").symlink_to("/etc/hostname")
    with pytest.raises(UnavailableError, match="export the group"):
        channel.pointer()


def point(stick: Stick, pointer: bytes, *devices: str, group: str = "gateway/line-3") -> None:
    """Have a stick bring a pointer for some devices."""
    told = stick.root / members_path(pointer)
    told.parent.mkdir(exist_ok=True)
    told.write_bytes(encode(Members(group=group, devices=devices)))
    (stick.root / POINTER).write_bytes(pointer)


def test_an_enrolled_device_takes_no_stick_of_another_group(
    stick: Stick, authority: trustme.CA
) -> None:
    keys = Enrolled(authority, "https://gateway.example")
    enrolled = StickChannel("cam-07", stick.mount, keys, interval_s=0.01)
    point(stick, POINTED, "cam-06", "cam-07")
    assert enrolled.pointer() == POINTED
    assert enrolled.access().state == "ok"
    other = b'{"another pointer": 2}'
    point(stick, other, "cam-01", group="gateway/line-9")
    assert enrolled.wait(60)
    assert enrolled.pointer() is None
    said = enrolled.access()
    assert said.state == "denied"
    assert "gateway/line-9, which cam-07 is not in" in str(said.detail)
    enrolled.send_report(b"{}")  # it tells of it all the same
    point(stick, other, "cam-01", "cam-07", group="gateway/line-9")  # it was moved there
    os.utime(stick.root / MEMBERS, ns=(1, 1))  # as the export's renaming changes it
    assert enrolled.wait(60)
    assert enrolled.pointer() == other
    assert StickChannel("cam-99", stick.mount).pointer() == other  # never enrolled


def test_an_enrolled_device_gives_no_stick_of_another_fleet_what_its_own_is_to_take(
    stick: Stick, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    keys = Enrolled(authority, "https://gateway.example")
    enrolled = StickChannel("cam-07", stick.mount, keys, interval_s=0.01)
    foreign = samples.pointer(1)
    assert foreign.fleet != FLEET
    point(stick, foreign.encoded(), "cam-07")  # they have a device of that name, too
    for _ in range(2):
        assert enrolled.pointer() is None
        assert enrolled.access().state == "denied"
        assert f"another fleet, {foreign.fleet}" in str(enrolled.access().detail)
    assert caplog.text.count("is not taken") == 1
    sends: tuple[Callable[[], None], ...] = (
        lambda: enrolled.send_report(b"{}"),
        lambda: enrolled.upload(NAME, Path(__file__)),
        lambda: enrolled.send_hot([new_event(HealthEvent(what="started", message="here"))]),
    )
    for send in sends:
        with pytest.raises(AccessDeniedError, match="another fleet"):
            send()
    assert not stick.own.exists()

    own = msgspec.structs.replace(foreign, fleet=FLEET).encoded()
    point(stick, own, "cam-07")
    assert enrolled.pointer() == own
    assert enrolled.access().state == "ok"
    enrolled.send_report(b"{}")
    assert stick.receipt("report.json")[0].fleet == FLEET


@pytest.mark.parametrize("what", ["missing", "of another pointer", "malformed", "a link"])
def test_a_stick_that_does_not_say_whose_it_is_is_nobodys(
    stick: Stick, authority: trustme.CA, what: str
) -> None:
    point(stick, POINTED, "cam-07")
    told = stick.root / members_path(POINTED)
    if what == "of another pointer":
        (stick.root / POINTER).write_bytes(b'{"a pointer": 2}')
    elif what == "malformed":
        told.write_bytes(b"{")
    else:
        told.rename(stick.root / "elsewhere")
        if what == "a link":
            told.symlink_to(stick.root / "elsewhere")
    enrolled = StickChannel("cam-07", stick.mount, Enrolled(authority, "https://gateway.example"))
    assert enrolled.pointer() is None
    assert enrolled.access().state == "denied"
    assert "export the device's group" in str(enrolled.access().detail)


def test_no_receipt_is_left_beside_another_file_than_its_own(
    stick: Stick, channel: StickChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.send_report(b"one")
    flush, calls = os.fsync, 0

    def pulled(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # the file's bytes, its name, the receipt's bytes
            raise OSError(19, "No such device")
        flush(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", pulled)
        with pytest.raises(UnavailableError):
            channel.send_report(b"two")
    assert [path.name for path in stick.own.iterdir()] == ["report.json"]
    channel.send_report(b"two")
    assert stick.receipt("report.json")[0].digest == digest_of(b"two")


def test_a_full_stick_loses_nothing(
    stick: Stick, channel: StickChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.send_report(b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageFullError):
            channel.send_report(b"two")
    assert (stick.own / "report.json").read_bytes() == b"one"
    assert len(list(stick.own.iterdir())) == 2


def test_a_stick_that_is_pulled_out_in_the_middle_is_told(
    stick: Stick, channel: StickChannel, tmp_path: Path
) -> None:
    segment = tmp_path / "segment"
    segment.write_bytes(b"events" * 1000)
    plain = channel.opened

    def pulled(path: Path) -> object:
        stick.pull_out()
        return plain(path)

    channel.opened = pulled  # type: ignore[assignment]
    with pytest.raises(UnavailableError, match="no stick"):
        channel.upload(NAME, segment)
    channel.opened = plain
    stick.put_in()
    channel.upload(NAME, segment)
    assert (stick.own / "files" / NAME).read_bytes() == segment.read_bytes()


def test_receipts_fit_their_type(stick: Stick, channel: StickChannel) -> None:
    channel.send_report(b"{}")
    receipt, _ = stick.receipt("report.json")
    assert msgspec.json.decode(msgspec.json.encode(receipt))["device"] == "cam-07"
