"""What devices wrote on a stick is believed by their signatures, and nothing is passed over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from click.testing import CliRunner

import edgefleet
from edgefleet.cli.app import cli
from edgefleet.errors import UnavailableError, UnsupportedError
from edgefleet.fleet import Fleet
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.gateway import MAX_FILE_BYTES
from edgefleet.protocol.segment import SegmentName, write_segment
from edgefleet.protocol.stick import Receipt, SignedReceipt, signed_bytes
from edgefleet.testing.kit import samples
from edgefleet_gateway.records import Certificate
from edgefleet_runtime.channels.pull.from_stick import StickChannel
from edgefleet_runtime.channels.pull.identity import DeviceIdentity
from providers.gateway.tests.joining_rig import FLEET, Rig
from providers.gateway.tests.stick_rig import PROFILE, Field, tree

SEGMENT = SegmentName(
    day=datetime(2026, 11, 22, tzinfo=UTC).date(), device="cam-1", model="digits", id="a1"
)


class Opened(NamedTuple):
    field: Field
    fleet: Fleet
    identity: DeviceIdentity
    channel: StickChannel


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Opened]:
    field = Field(tmp_path)
    identity = field.join("cam-1")
    with field.connect() as fleet:
        yield Opened(field, fleet, identity, field.channel("cam-1", identity))


def segment(folder: Path, *seconds: int) -> Path:
    """A file of events."""
    path = folder / "segment"
    with path.open("wb") as stream:
        write_segment([samples.prediction(second) for second in seconds], stream)
    return path


def own(at: Opened) -> Path:
    """The device's folder on the stick."""
    return at.field.root / "receipts" / "cam-1"


def ids(at: Opened) -> list[str]:
    return sorted(event.id for event in at.fleet.events())


def test_report_events_segments_and_samples_come_back(at: Opened, tmp_path: Path) -> None:
    report = samples.report(sequence=3)
    alarm = samples.alarm(5)
    at.channel.send_report(report.encoded())
    at.channel.send_hot([alarm])
    at.channel.upload(SEGMENT.below_device, segment(tmp_path, 1, 2))
    sample = tmp_path / "sample"
    sample.write_bytes(b"pixels")
    hexadecimal = digest_of(b"pixels").removeprefix("sha256:")
    at.channel.upload(f"samples/sha256/{hexadecimal}", sample)

    taken = at.fleet.take_receipts(at.field.mount)

    assert taken == (("cam-1",), 1, 1, 2, 0, {})
    assert len(ids(at)) == 3
    assert alarm.id in ids(at)
    info = at.fleet.device("cam-1").info
    assert info.report == report
    assert info.last_seen == min(report.time, datetime.now(UTC))
    assert at.fleet.telemetry.sample("cam-1", digest_of(b"pixels")) == b"pixels"
    assert [path for path in own(at).rglob("*") if path.is_file()] == []


def test_the_same_again_changes_nothing(at: Opened, tmp_path: Path) -> None:
    alarm = samples.alarm(5)
    for _ in range(2):
        at.channel.send_report(samples.report(sequence=3).encoded())
        at.channel.send_hot([alarm])
        at.channel.upload(SEGMENT.below_device, segment(tmp_path, 1, 2))
        at.fleet.take_receipts(at.field.mount)
    assert len(ids(at)) == 3
    assert at.fleet.take_receipts(at.field.mount) == ((), 0, 0, 0, 0, {})


def test_an_older_report_doesn_t_take_the_place_of_a_newer(at: Opened) -> None:
    for sequence in (7, 4):
        at.channel.send_report(samples.report(sequence=sequence).encoded())
        at.fleet.take_receipts(at.field.mount)
    report = at.fleet.device("cam-1").info.report
    assert report is not None
    assert report.sequence == 7


def test_a_take_that_is_interrupted_goes_on(
    at: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is away after the first file; then the stick is pulled before one was removed."""
    telemetry = at.fleet.telemetry
    assert isinstance(telemetry, CanReceive)
    for number in range(3):
        name = msgspec.structs.replace(SEGMENT, id=f"a{number}")
        at.channel.upload(name.below_device, segment(tmp_path, number))
    kept = 0
    keep = type(telemetry)._receive_file

    def away(self: CanReceive, device: str, path: str, file: Path) -> None:
        nonlocal kept
        if kept == 1:
            raise UnavailableError("away")
        keep(self, device, path, file)
        kept += 1

    with monkeypatch.context() as patch:
        patch.setattr(type(telemetry), "_receive_file", away)
        with pytest.raises(UnavailableError, match="away"):
            at.fleet.take_receipts(at.field.mount)
    first = min(path for path in own(at).rglob("*.zst"))
    first.unlink()  # taken, and the stick pulled out before its receipt went
    assert first.name == "a1.ndjson.zst"
    taken = at.fleet.take_receipts(at.field.mount)
    assert (taken.files, taken.unfinished) == (1, 1)
    assert at.fleet.take_receipts(at.field.mount).unfinished == 0


def test_a_file_that_was_never_finished_stays_and_is_counted(at: Opened) -> None:
    at.channel.send_hot([samples.alarm(1)])
    (seal,) = own(at).rglob("*.receipt.json")
    seal.unlink()
    for _ in range(2):
        assert at.fleet.take_receipts(at.field.mount).unfinished == 1


def test_a_stick_of_another_fleet_is_left_as_it_is(
    at: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names the wrong profile must not put aside what the right one is to take."""
    at.channel.send_report(samples.report(sequence=3).encoded())
    at.channel.send_hot([samples.alarm(1)])
    theirs = samples.pointer(1)
    (at.field.root / "pointer.json").write_bytes(theirs.encoded())
    before = tree(at.field.mount)
    monkeypatch.chdir(at.field.folder)
    act = ["bundle", "import", "--profile", "field", "--from", str(at.field.mount)]
    done = CliRunner().invoke(cli, act)
    assert done.exit_code == 1
    assert f"another fleet, {theirs.fleet}: nothing was taken or moved" in done.stderr
    assert "--profile" in done.stderr
    assert tree(at.field.mount) == before

    mine = msgspec.structs.replace(theirs, fleet=FLEET)
    (at.field.root / "pointer.json").write_bytes(mine.encoded())
    taken = at.fleet.take_receipts(at.field.mount)
    assert (taken.reports, taken.events, taken.refused) == (1, 1, {})


def test_a_pointer_that_nobody_can_read_keeps_nothing_from_being_taken(at: Opened) -> None:
    at.channel.send_report(samples.report(sequence=3).encoded())
    (at.field.root / "pointer.json").write_bytes(b"{")
    assert at.fleet.take_receipts(at.field.mount).reports == 1


# --------------------------------------------------------------------------------------- attacks


def _tampered(at: Opened) -> None:
    (own(at) / "report.json").write_bytes(samples.report(sequence=9).encoded())


def _another_path(at: Opened) -> None:
    for path in (own(at) / "report.json", own(at) / "report.json.receipt.json"):
        path.rename(path.with_name(path.name.replace("report.json", "copy.json", 1)))


def _unsigned(at: Opened) -> None:
    at.field.channel("cam-1", None).send_report(samples.report(sequence=1).encoded())


def _sealed(at: Opened, receipt: Receipt, identity: DeviceIdentity) -> None:
    raw = encode(receipt)
    signed = SignedReceipt(
        receipt=raw,
        signature=identity.sign(signed_bytes(raw)),
        certificate=identity.identity.certificate,
    )
    (own(at) / "report.json.receipt.json").write_bytes(encode(signed))


def _receipt(at: Opened, **changed: object) -> Receipt:
    data = (own(at) / "report.json").read_bytes()
    said = {
        "device": "cam-1",
        "path": "report.json",
        "digest": digest_of(data),
        "size": len(data),
        "fleet": FLEET,
    }
    return msgspec.convert(said | changed, Receipt)


def _signed_by_another_device(at: Opened) -> None:
    _sealed(at, _receipt(at), at.field.join("cam-2"))


def _for_another_fleet(at: Opened) -> None:
    _sealed(at, _receipt(at, fleet="0" * 8 + FLEET[8:]), at.identity)


def _with_a_forged_signature(at: Opened) -> None:
    seal = own(at) / "report.json.receipt.json"
    read = msgspec.json.decode(seal.read_bytes(), type=SignedReceipt)
    assert read.signature is not None
    wrong = bytes((*read.signature[:-1], read.signature[-1] ^ 1))
    seal.write_bytes(encode(msgspec.structs.replace(read, signature=wrong)))


def _of_a_foreign_authority(at: Opened) -> None:
    (at.field.folder / "foreign").mkdir()
    other = Rig(at.field.folder / "foreign")
    mine, at.field.rig = at.field.rig, other
    (at.field.folder / "cam-1").rename(at.field.folder / "cam-1-own")
    foreign = at.field.join("cam-1")
    at.field.rig = mine
    _sealed(at, _receipt(at), foreign)


def _revoked(at: Opened) -> None:
    at.field.rig.roster.change("cam-1", lambda there: msgspec.structs.replace(there, revoked=True))


def _replaced(at: Opened) -> None:
    """Another machine has the name now."""
    new = Certificate(serial="abc", ends=datetime.now(UTC) + timedelta(days=9))
    at.field.rig.roster.change(
        "cam-1", lambda there: msgspec.structs.replace(there, certificates=(new,))
    )


def _retired(at: Opened) -> None:
    at.field.rig.roster.retire("cam-1")


def _a_link(at: Opened) -> None:
    victim = at.field.folder / "victim"
    (own(at) / "report.json").rename(victim)
    (own(at) / "report.json").symlink_to(victim)


def _no_document(at: Opened) -> None:
    (own(at) / "report.json.receipt.json").write_bytes(b"{")


def _endless(at: Opened) -> None:
    (own(at) / "report.json.receipt.json").write_bytes(b" " * (65 << 10))


@pytest.mark.parametrize(
    "attack, said",
    [
        (_tampered, "other bytes than its receipt says"),
        (_another_path, "its receipt is for 'report.json' of 'cam-1'"),
        (_unsigned, "isn't signed"),
        (_signed_by_another_device, "isn't 'cam-1' of this fleet that signed it"),
        (_for_another_fleet, "isn't 'cam-1' of this fleet that signed it"),
        (_with_a_forged_signature, "signature is wrong"),
        (_of_a_foreign_authority, "isn't of this fleet's authority"),
        (_revoked, "'cam-1' was revoked"),
        (_replaced, "with a certificate that counts no more"),
        (_retired, "no device 'cam-1' here"),
        (_a_link, "link or no plain file"),
        (_no_document, "malformed"),
        (_endless, "over the limit"),
    ],
)
def test_what_the_device_didn_t_sign_is_set_aside_and_counted(
    at: Opened, attack: Callable[[Opened], None], said: str
) -> None:
    at.channel.send_report(samples.report(sequence=3).encoded())
    attack(at)
    taken = at.fleet.take_receipts(at.field.mount)
    assert (taken.reports, taken.devices) == (0, ())
    (why,) = taken.refused.values()
    assert said in why
    assert at.field.rig.roster.report("cam-1") is None
    assert list((at.field.root / "refused" / "cam-1").iterdir())
    after = at.fleet.take_receipts(at.field.mount)
    assert not after.refused


def test_a_certificate_that_ended_still_speaks_for_a_device_that_can_t_renew(at: Opened) -> None:
    """Only a stick reaches it; that its record lists the certificate is what counts."""
    certificates = at.field.rig.record("cam-1").certificates
    assert certificates[-1].ends < at.field.rig.now + timedelta(days=91)
    at.field.rig.now += timedelta(days=400)
    at.channel.send_report(samples.report(sequence=3).encoded())
    assert at.fleet.take_receipts(at.field.mount).reports == 1


@pytest.mark.parametrize(
    "name, said",
    [
        ("segments/../../cam-2/segments/a", "its receipt is for"),
        ("elsewhere/a", "devices keep no"),
        ("samples", "devices keep no"),
    ],
)
def test_a_device_writes_below_its_own_prefix_alone(
    at: Opened, tmp_path: Path, name: str, said: str
) -> None:
    """It signs what it wants: its own file, whose receipt says another path."""
    at.channel.upload(SEGMENT.below_device, segment(tmp_path, 1))
    (path,) = own(at).rglob("*.zst")
    data = path.read_bytes()
    raw = encode(
        Receipt(
            device="cam-1",
            path=f"files/{name}",
            digest=digest_of(data),
            size=len(data),
            fleet=FLEET,
        )
    )
    target = own(at) / "files" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    next(own(at).rglob("*.receipt.json")).unlink()
    signed = SignedReceipt(
        receipt=raw,
        signature=at.identity.sign(signed_bytes(raw)),
        certificate=at.identity.identity.certificate,
    )
    target.with_name(target.name + ".receipt.json").write_bytes(encode(signed))
    taken = at.fleet.take_receipts(at.field.mount)
    assert taken.files == 0
    assert any(said in why for why in taken.refused.values())
    assert not ids(at)


def test_a_file_over_the_limit_is_not_read(at: Opened, tmp_path: Path) -> None:
    at.channel.upload(SEGMENT.below_device, segment(tmp_path, 1))
    (path,) = own(at).rglob("*.zst")
    name = path.relative_to(own(at)).as_posix()
    os.truncate(path, MAX_FILE_BYTES + 1)
    raw = encode(
        Receipt(
            device="cam-1",
            path=name,
            digest=digest_of(b""),
            size=MAX_FILE_BYTES + 1,
            fleet=FLEET,
        )
    )
    signed = SignedReceipt(
        receipt=raw,
        signature=at.identity.sign(signed_bytes(raw)),
        certificate=at.identity.identity.certificate,
    )
    path.with_name(path.name + ".receipt.json").write_bytes(encode(signed))
    assert "over the limit" in at.fleet.take_receipts(at.field.mount).refused[f"cam-1/{name}"]


def test_a_device_can_t_speak_in_another_s_name_by_its_events(at: Opened) -> None:
    foreign = msgspec.structs.replace(samples.alarm(1), source="/devices/cam-2")
    at.channel.send_hot([foreign])
    at.fleet.take_receipts(at.field.mount)
    (event,) = at.fleet.events()
    assert event.source == "/devices/cam-1"


def test_links_to_devices_and_receipts_are_not_followed(at: Opened, tmp_path: Path) -> None:
    at.channel.send_report(samples.report(sequence=3).encoded())
    own(at).rename(tmp_path / "hidden")
    own(at).symlink_to(tmp_path / "hidden")
    taken = at.fleet.take_receipts(at.field.mount)
    assert taken.refused == {"cam-1": "it is no folder of a device"}
    assert (tmp_path / "hidden" / "report.json").exists()


def test_a_profile_whose_devices_sign_nothing_says_so(tmp_path: Path) -> None:
    config = tmp_path / "edgefleet.toml"
    config.write_text(PROFILE.replace('["gateway"]', '["local"]'))
    (tmp_path / "usb" / "edgefleet").mkdir(parents=True)
    with (
        edgefleet.connect("field", config=config) as fleet,
        pytest.raises(UnsupportedError, match="lacks CanTakeReceipts"),
    ):
        fleet.take_receipts(tmp_path / "usb")


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_names_that_somebody_chose_are_told_in_plain_letters(
    at: Opened, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(at.field.folder)
    folder = at.field.root / "receipts"
    (folder / "\udcff\x1b[2J").mkdir(parents=True)  # the byte 0xff, which is no UTF-8
    act = ["bundle", "import", "--profile", "field", "--from", str(at.field.mount), *words]
    done = CliRunner().invoke(cli, act)
    assert "was refused" in done.stderr
    assert done.exit_code == 1
    assert "\x1b" not in done.output
    assert "\\udcff" in done.stdout
    assert not list(folder.iterdir())


def test_the_command_says_what_came_and_fails_for_what_was_refused(
    at: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(at.field.folder)
    act = ["bundle", "import", "--profile", "field", "--from", str(at.field.mount), "--json"]
    at.channel.send_report(samples.report(sequence=3).encoded())
    at.channel.send_hot([samples.alarm(1)])
    (own(at) / "report.json").write_bytes(b"{}")
    done = CliRunner().invoke(cli, act)
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["events"] == 1
    assert told["refused"] == {"cam-1/report.json": "it holds other bytes than its receipt says"}
    assert "1 of what the stick held was refused; the rest was taken" in done.stderr

    at.channel.send_report(samples.report(sequence=4).encoded())
    (own(at) / "report.json").write_bytes(b"{}")
    alone = CliRunner().invoke(cli, act)
    assert alone.exit_code == 1
    assert "1 of what the stick held was refused; nothing was taken" in alone.stderr
