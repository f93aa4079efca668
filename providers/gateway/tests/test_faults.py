"""What a gateway does when what it stands before, its disk or itself fails."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPException, IncompleteRead
from pathlib import Path

import msgspec
import pytest

from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import HealthEvent, new_event
from edgefleet.protocol.gateway import digest_field
from edgefleet.testing.waiting import TIMEOUT_S, eventually
from edgefleet_gateway import mirror
from edgefleet_gateway.server import scratch
from edgefleet_gateway.server.presence import Presence
from edgefleet_gateway.server.running import Serving
from edgefleet_gateway.server.scratch import Scratch
from providers.gateway.tests.exchanges import (
    EVENTS,
    JSON,
    REPORT,
    SEGMENT,
    heard,
    patch,
    polled,
    waiting,
)
from providers.gateway.tests.joining_rig import Machine
from providers.gateway.tests.server_rig import Client, Fleet

CONTENT = bytes(range(251)) * 10_000
DIGEST = {"Repr-Digest": digest_field(digest_of(CONTENT))}


def offset(device: Client) -> int:
    answer = device.ask("HEAD", f"/v1/files/{SEGMENT}", None, DIGEST)
    assert answer.headers["upload-complete"] == "?0"
    return int(answer.headers["upload-offset"])


# Itself


@contextmanager
def another_process(fleet: Fleet) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """A gateway of its own process before the same fleet, and its device cam-1."""
    command = [sys.executable, "-m", "providers.gateway.tests.killed", str(fleet.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            context = fleet.context()
            context.load_cert_chain(fleet.folder / "cam-1.pem")
            client = Client(port, context)
            try:
                yield process, client
            finally:
                client.close()
        finally:
            process.kill()


def test_a_gateway_killed_in_an_upload_goes_on_with_it_and_takes_nothing_twice(
    fleet: Fleet,
) -> None:
    fleet.identity_file("cam-1")
    step = 1 << 20
    with another_process(fleet) as (process, device):
        assert patch(device, SEGMENT, CONTENT, 0, step).status == 204
        with device.raw() as raw:
            raw.sendall(
                f"PATCH /v1/files/{SEGMENT} HTTP/1.1\r\nHost: gw\r\nContent-Length: {step}\r\n"
                "Content-Type: application/partial-upload\r\n"
                f"Repr-Digest: {DIGEST['Repr-Digest']}\r\nUpload-Offset: {step}\r\n"
                f"Upload-Length: {len(CONTENT)}\r\nUpload-Complete: ?0\r\n\r\n".encode()
                + CONTENT[step : step + 600_000]
            )
            eventually(lambda: offset(device) > step)
            process.send_signal(signal.SIGKILL)
            process.wait(TIMEOUT_S)
    with another_process(fleet) as (_, device):
        there = offset(device)
        assert step < there <= step + 600_000
        assert patch(device, SEGMENT, CONTENT, there, there + 400_000).status == 204
        assert patch(device, SEGMENT, CONTENT, there + 400_000, len(CONTENT)).status == 201
    taken = list((fleet.folder / "taken").iterdir())
    assert [file.read_bytes() for file in taken] == [CONTENT]


def test_a_gateway_killed_before_it_said_that_a_file_is_there_hands_it_on_again(
    fleet: Fleet,
) -> None:
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        partial = Scratch(fleet.folder / "scratch").partial("cam-1", SEGMENT, digest_of(b"whole"))
        partial.append(b"whole", at=0)  # as it is left when all came, and it wasn't handed on
        assert patch(device, SEGMENT, b"whole", 5, 5).status == 201
    assert fleet.receiver.files == [("cam-1", SEGMENT, b"whole")]


def test_two_gateways_before_one_state_know_the_same(fleet: Fleet, tmp_path: Path) -> None:
    other_scratch = tmp_path / "other"
    with (
        fleet.gateway() as one,
        fleet.gateway(lambda options: replace(options, scratch=other_scratch)) as two,
    ):
        machine, identity = fleet.join("cam-1")
        first, second = fleet.client(one, machine, identity), fleet.client(two, machine, identity)
        etag = published(fleet, first)
        eventually(lambda: second.get("/v1/pointer").headers.get("etag") == etag)
        # What one renewed, the other takes at once, though it looked at the device just now.
        renewed = first.ask("POST", "/v1/renew", encode(machine.renewal()), JSON)
        fresh = msgspec.json.decode(renewed.body, type=type(identity))
        assert fleet.client(two, machine, fresh).get("/v1/pointer").status == 200
        # A file that was begun at one begins anew at the other, and comes whole.
        device, at_two = fleet.client(one, machine, fresh), fleet.client(two, machine, fresh)
        assert patch(device, SEGMENT, CONTENT, 0, 1 << 20).status == 204
        assert offset(at_two) == 0
        for start in range(0, len(CONTENT), 1 << 20):
            end = min(start + (1 << 20), len(CONTENT))
            assert patch(at_two, SEGMENT, CONTENT, start, end).status in {201, 204}
        assert fleet.receiver.files == [("cam-1", SEGMENT, CONTENT)]


def published(fleet: Fleet, device: Client) -> str:
    """Publish a pointer; gives its ETag when the device gets it."""
    fleet.publish()
    eventually(lambda: device.get("/v1/pointer").status == 200)
    return device.get("/v1/pointer").headers["etag"]


# The state store


def held(fleet: Fleet, gateway: Serving, device: Client) -> str:
    """Publish a pointer; gives its ETag once the gateway holds all that the device needs."""
    fleet.publish()
    eventually(lambda: heard(fleet, gateway))
    return device.get("/v1/pointer").headers["etag"]


def test_while_the_state_store_is_away_polls_are_answered_and_writes_put_off(
    fleet: Fleet,
) -> None:
    with fleet.gateway() as gateway:
        assert gateway.gateway is not None
        known = gateway.gateway.mirror
        device = fleet.device(gateway, "cam-1")
        machine = Machine()
        enrolment = encode(machine.enrolment(fleet.rig.invite("cam-2")))
        etag = held(fleet, gateway, device)
        fleet.state.away = True
        eventually(lambda: known.away_since is not None)
        assert device.get("/v1/pointer").headers["etag"] == etag
        assert device.get("/v1/pointer", If_None_Match=etag).status == 304
        report = device.ask("PUT", "/v1/report", REPORT.encoded(), JSON)
        assert report.problem()["status"] == 503
        assert int(report.headers["retry-after"]) > 0
        assert "detail" not in report.problem()  # what it stands before is no business of devices
        assert b'"degraded"' in fleet.stranger(gateway).get("/health").body
        # What needs no state goes on.
        assert patch(device, SEGMENT, b"content", 0, 7).status == 201
        events = msgspec.json.encode([new_event(HealthEvent(what="started", message="here"))])
        assert device.ask("POST", "/v1/events", events, EVENTS).status == 204
        # A poll that waits goes on waiting, and hears of what was published meanwhile.
        asking, answers = polled(device, If_None_Match=etag)
        eventually(lambda: waiting(gateway) == 1)
        fleet.publish(number=2)
        fleet.state.away = False
        asking.join(TIMEOUT_S)
        assert answers[0].status == 200
        assert device.ask("PUT", "/v1/report", REPORT.encoded(), JSON).status == 204
        assert fleet.stranger(gateway).ask("POST", "/v1/enroll", enrolment, JSON).status == 200


def test_a_device_that_isn_t_held_is_put_off_while_the_state_store_is_away(fleet: Fleet) -> None:
    with fleet.gateway() as gateway:
        assert gateway.gateway is not None
        device = fleet.device(gateway, "cam-1")
        fleet.state.away = True
        eventually(lambda: gateway.gateway is None or gateway.gateway.mirror.away_since is not None)
        answer = device.get("/v1/pointer")
        assert answer.problem()["status"] == 503
        fleet.state.away = False
        eventually(lambda: device.get("/v1/pointer").status == 204)


def test_a_state_store_that_doesn_t_answer_stops_no_poll(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        etag = held(fleet, gateway, device)
        monkeypatch.setattr(mirror, "PATIENCE_S", 0.3)
        fleet.state.hold = threading.Event()
        try:
            for _ in range(3):
                assert device.get("/v1/pointer").headers["etag"] == etag
            assert device.ask("PUT", "/v1/report", REPORT.encoded(), JSON).status == 503
        finally:
            fleet.state.hold.set()


def test_a_gateway_that_may_no_longer_write_ends_in_order(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def denied(_: Presence) -> None:
        raise AccessDeniedError("the test took the permission away")

    with fleet.gateway() as gateway:
        assert fleet.device(gateway, "cam-1").get("/v1/pointer").status == 204
        monkeypatch.setattr(Presence, "flush", denied)
    assert gateway.gateway is not None
    assert gateway.gateway.mirror.closed
    with pytest.raises(RuntimeError, match="shutdown"):  # its threads have ended, too
        asyncio.run(gateway.gateway.thread(bool))


# Telemetry and disks


def test_a_file_that_telemetry_can_t_take_stays_here_until_it_can(fleet: Fleet) -> None:
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        fleet.receiver.fails = StorageFullError("the test's disk is full")
        assert patch(device, SEGMENT, b"content", 0, 7).problem()["status"] == 507
        events = msgspec.json.encode([new_event(HealthEvent(what="started", message="here"))])
        assert device.ask("POST", "/v1/events", events, EVENTS).problem()["status"] == 507
        fleet.receiver.fails = None
        assert patch(device, SEGMENT, b"content", 7, 7).status == 201
    assert fleet.receiver.files == [("cam-1", SEGMENT, b"content")]


@pytest.mark.parametrize(
    "error", [InvalidInputError, LimitExceededError, IntegrityError, NotFoundError]
)
def test_what_telemetry_refuses_is_no_fault_of_the_device_s(
    fleet: Fleet, error: type[EdgeFleetError]
) -> None:
    # A device gives up what it is told that it is malformed or too large.
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        fleet.receiver.fails = error("the test's telemetry keeps nothing of that name")
        events = msgspec.json.encode([new_event(HealthEvent(what="started", message="here"))])
        for answer in (
            patch(device, SEGMENT, b"content", 0, 7),
            device.ask("POST", "/v1/events", events, EVENTS),
        ):
            assert answer.problem()["status"] == 503
            assert "detail" not in answer.problem()
            assert int(answer.headers["retry-after"]) > 0


def test_a_blob_that_breaks_off_ends_the_connection_and_is_told(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytes(1 << 20)
    blob = fleet.blobs.put_bytes(content, "application/octet-stream")

    class Breaking(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            if self.tell():
                raise UnavailableError("the test took the registry away")
            return super().read(count)

    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        path = "/v1/blobs/" + blob.digest.replace(":", "/")
        with monkeypatch.context() as patched:
            patched.setattr(fleet.blobs, "_open", lambda *_: Breaking(content))
            with pytest.raises((IncompleteRead, OSError)):
                device.get(path)
        assert "a blob breaks off: UnavailableError: the test took" in caplog.text
        assert device.get(path).body == content


def test_a_blob_that_went_since_its_size_was_asked_for_is_not_there(fleet: Fleet) -> None:
    blob = fleet.blobs.put_bytes(b"content", "application/octet-stream")
    path = "/v1/blobs/" + blob.digest.replace(":", "/")
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        assert device.get(path).body == b"content"
        for file in fleet.folder.rglob(hex_of(blob.digest)):
            file.unlink()
        assert device.get(path).problem()["status"] == 404


def test_a_full_disk_refuses_a_part_and_keeps_what_was_there(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        assert patch(device, SEGMENT, CONTENT, 0, 1000).status == 204

        def full(*_arguments: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            answer = patch(device, SEGMENT, CONTENT, 1000, 2000)
        assert answer.problem()["status"] == 507
        assert int(answer.headers["retry-after"]) > 0
        assert offset(device) == 1000
        assert patch(device, SEGMENT, CONTENT, 1000, 1 << 20).status == 204


def test_an_audit_log_that_can_t_be_begun_anew_stops_no_request(
    fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log.jsonl"
    with fleet.gateway(lambda options: replace(options, audit_log=log)) as gateway:
        device = fleet.device(gateway, "cam-1")
        log.unlink()
        log.mkdir()
        for _ in range(2):
            assert device.ask("PUT", "/v1/report", REPORT.encoded(), JSON).status == 204
        assert "the audit log can't be written" in caplog.text
        log.rmdir()
        assert device.ask("PUT", "/v1/report", REPORT.encoded(), JSON).status == 204
    assert log.read_text().count("putReport") == 1


def test_a_full_disk_stops_neither_a_request_nor_the_audit_log_s_gateway(
    fleet: Fleet, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with fleet.gateway(lambda options: replace(options, audit_log=log)) as gateway:
        device = fleet.device(gateway, "cam-1")
        log.unlink()
        log.symlink_to("/dev/full")
        assert device.ask("PUT", "/v1/report", REPORT.encoded(), JSON).status == 204


def test_what_devices_send_is_capped_on_this_machine(fleet: Fleet) -> None:
    with fleet.gateway(lambda options: replace(options, scratch_bytes=1 << 20)) as gateway:
        first, second = fleet.device(gateway, "cam-1"), fleet.device(gateway, "cam-2")
        assert patch(first, SEGMENT, CONTENT, 0, 1000).status == 204
        assert patch(second, SEGMENT, CONTENT, 0, 1 << 20).problem()["status"] == 507


def test_one_device_is_capped_on_its_own(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Scratch(fleet.folder / "scratch", max_device_bytes=100)
    small.check_room("cam-1", 100)
    small.grown("cam-1", 60)
    small.check_room("cam-2", 100)
    with pytest.raises(StorageFullError, match="unfinished files"):
        small.check_room("cam-1", 41)
    monkeypatch.setattr(scratch, "SPARE_BYTES", 1 << 60)
    with pytest.raises(StorageFullError, match="no room"):
        small.check_room("cam-1", 1)


def test_what_nobody_goes_on_with_is_swept_away(tmp_path: Path) -> None:
    now = [1_000_000.0]
    folder = Scratch(tmp_path, clock=lambda: now[0])
    old, done, new = (folder.partial("cam-1", path, digest_of(b"x")) for path in ("a", "b", "c"))
    for one in (old, done, new):
        one.append(b"123", at=0)
        folder.grown("cam-1", 3)
        os.utime(one.file, (now[0], now[0]))
    done.finish()
    folder.grown("cam-1", -3)
    for mark in tmp_path.rglob("*.done"):
        os.utime(mark, (now[0], now[0]))
    assert Scratch(tmp_path).held == 6
    now[0] += scratch.MARKED_S + 1
    assert (folder.sweep(), done.done, old.size) == ([("cam-1", 0)], False, 3)
    now[0] += scratch.KEPT_S
    os.utime(new.file, (now[0], now[0]))
    assert (folder.sweep(), old.size, new.size) == ([("cam-1", 3)], 0, 3)


def test_devices_that_send_nothing_more_leave_no_folder(tmp_path: Path) -> None:
    now = [1_000_000.0]
    folder = Scratch(tmp_path, clock=lambda: now[0])
    files = [folder.partial(f"cam-{n}", "a", digest_of(b"x")) for n in range(20)]
    for one in files:
        one.append(b"x", at=0)
        one.finish()
    root = files[0].file.parent.parent

    def aged() -> None:
        for path in root.rglob("*"):
            os.utime(path, (now[0], now[0]))

    aged()
    now[0] += scratch.KEPT_S
    assert len(folder.sweep()) == 20  # the marks; the folders have changed by that
    aged()
    now[0] += scratch.KEPT_S - 1
    files[0].append(b"xy", at=0)
    now[0] += 1
    folder.sweep()
    assert [path.name for path in root.iterdir()] == ["cam-0"]
    files[1].append(b"z", at=0)
    assert (files[0].size, files[1].size) == (2, 1)


def test_what_was_swept_away_leaves_room(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefleet_gateway.server.running.TEND_S", 0.05)
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        assert patch(device, SEGMENT, CONTENT, 0, 1000).status == 204
        assert gateway.gateway is not None
        folder = gateway.gateway.scratch
        assert folder.held == 1000
        monkeypatch.setattr(scratch, "KEPT_S", -1.0)
        eventually(lambda: folder.held == 0)


def test_what_fails_while_it_tends_itself_is_tried_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[Scratch] = []

    def full(folder: Scratch) -> list[tuple[str, int]]:
        swept.append(folder)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Scratch, "sweep", full)
    monkeypatch.setattr("edgefleet_gateway.server.running.TEND_S", 0.01)
    with fleet.gateway():
        eventually(lambda: len(swept) > 2)


def test_a_new_authority_is_served_with_at_once_and_the_old_one_s_devices_stay(
    fleet: Fleet,
) -> None:
    rig = fleet.rig
    with fleet.gateway() as gateway:
        device, before = fleet.device(gateway, "cam-1"), rig.authority.believed
        assert device.get("/v1/pointer").status == 204
        rig.rotate()
        eventually(lambda: fleet.rig.authority.believed != before)
        # A device of the new authority is let in, and the one of the old still is.
        eventually(
            lambda: fleet.device(gateway, "cam-2").get("/v1/pointer").status == 204,
            ignoring=(OSError, HTTPException),
        )
        eventually(
            lambda: device.get("/v1/pointer").status == 204, ignoring=(OSError, HTTPException)
        )


def test_an_authority_that_is_believed_no_more_makes_no_connection(fleet: Fleet) -> None:
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        assert device.get("/v1/pointer").status == 204
        fleet.rig.rotate(keep=False)

        def refused() -> bool:
            try:
                return device.get("/v1/pointer").status != 204
            except (OSError, HTTPException):
                return True

        eventually(refused)
        device.context.check_hostname, device.context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises((OSError, HTTPException)):
            device.get("/v1/pointer")


def test_a_broken_authority_document_leaves_the_gateway_serving(fleet: Fleet) -> None:
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        fleet.rig.state.update(fleet.rig.keys.authority, lambda _: b"not a document")
        fleet.rig.roster.ring("authority")
        eventually(lambda: fleet.stranger(gateway).get("/v1/ca").status == 503)
        assert device.get("/v1/pointer").status == 204
