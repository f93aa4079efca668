"""The device's own channel against the real gateway: what each does to the other when it fails."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from edgefleet.errors import AccessDeniedError, EdgeFleetError, NotFoundError, UnavailableError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import decode
from edgefleet.protocol.event import HealthEvent, new_event
from edgefleet.protocol.gateway import Enrolment
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.records import DeviceRecord, ReportRecord
from edgefleet_gateway.requests import Requests
from edgefleet_gateway.server.running import Serving
from edgefleet_runtime.channels.pull.from_gateway import GatewayChannel
from edgefleet_runtime.channels.pull.identity import DeviceIdentity, IdentityFolder
from edgefleet_runtime.channels.requests import Reply, Request
from providers.gateway.tests.exchanges import REPORT, heard
from providers.gateway.tests.server_rig import Fleet

DEVICE = "cam-1"
NAME = "segments/2026-11-22/0001.ndjson.zst"


class Site:
    """A fleet, its gateway that comes and goes at one port, and a device's channel."""

    def __init__(self, folder: Path) -> None:
        self.port = HeldPort()
        self.address = f"https://localhost:{self.port.number}"
        self.fleet = Fleet(folder, addresses=(self.address,))
        self.folder = folder / "identity"
        self._up: ExitStack | None = None
        self.serving: Serving | None = None

    def start(self) -> None:
        self._up = ExitStack()
        self.serving = self._up.enter_context(
            self.fleet.gateway(lambda options: replace(options, port=self.port.number))
        )

    def stop(self) -> None:
        if self._up is not None:
            self._up.close()
            self._up = None

    def close(self) -> None:
        self.stop()
        self.port.close()

    def enrol(self, *, ago: timedelta = timedelta()) -> None:
        files, rig = IdentityFolder(self.folder), self.fleet.rig
        rig.now = datetime.now(UTC) - ago
        try:
            asked = Enrolment(token=rig.invite(DEVICE), request=files.request())
            files.take(rig.joining.enroll(asked))
        finally:
            rig.now = datetime.now(UTC)

    def channel(self, **options: Any) -> closing[GatewayChannel]:
        given = {"wait_s": 0.0, "timeout_s": 30.0, **options}
        return closing(GatewayChannel(DeviceIdentity(self.folder), **given))

    def change(self, **fields: Any) -> None:
        """Edit the device's record, as operators do."""
        rig = self.fleet.rig
        rig.roster.change(DEVICE, lambda there: msgspec.structs.replace(there, **fields))
        rig.roster.ring(f"device/{DEVICE}")

    def record(self) -> DeviceRecord:
        return self.fleet.rig.record(DEVICE)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    found.start()
    found.enrol()
    yield found
    found.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "segment"
    path.write_bytes(random.Random(5).randbytes(1_200_000))
    return path


def test_a_pointer_comes_when_it_is_published(site: Site) -> None:
    with site.channel(wait_s=50.0) as channel:
        assert channel.pointer() is None
        assert channel.access().state == "ok"
        channel.wait(0)
        assert site.serving is not None
        gateway = site.serving.gateway
        eventually(lambda: gateway is not None and gateway.waiting == 1)
        pointer = site.fleet.publish()
        assert channel.wait(60)
        assert channel.pointer() == pointer.encoded()


def test_a_blob_a_report_and_events_go_over_the_same_gateway(site: Site) -> None:
    digest = site.fleet.blobs.put_bytes(b"a model", "application/octet-stream").digest
    with site.channel() as channel:
        source = channel.source(channel.addresses()[0])
        assert source is not None
        with source.open(digest, 2) as stream:
            assert (stream.start, stream.read(100)) == (2, b"model")
        with pytest.raises(NotFoundError):
            source.open(digest_of(b"another"), 0)
        channel.send_report(REPORT.encoded())
        event = new_event(HealthEvent(what="started", message="here"))
        channel.send_hot([event, event])
    stored = site.fleet.rig.state.read(site.fleet.rig.keys.report(DEVICE))
    assert stored is not None
    assert decode(ReportRecord, stored.data).report == REPORT.encoded()
    assert {(one.id, one.device) for one in site.fleet.receiver.events} == {(event.id, DEVICE)}


def test_a_gateway_that_is_killed_in_an_upload_gets_the_rest_and_nothing_twice(
    site: Site, file: Path
) -> None:
    with site.channel() as channel:
        plain = channel.opened

        class Killing:
            def __init__(self, path: Path) -> None:
                self._file = plain(path)

            def read(self, size: int) -> bytes:
                if self._file.tell() > 400_000:
                    site.stop()
                return self._file.read(size)

            def seek(self, offset: int) -> int:
                return self._file.seek(offset)

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_: object) -> None:
                self._file.close()

        channel.opened = Killing  # type: ignore[assignment]
        with pytest.raises(UnavailableError):
            channel.upload(NAME, file)
        assert not site.fleet.receiver.files
        site.start()
        before: list[int] = []

        class Counting(Killing):
            def read(self, size: int) -> bytes:
                data = self._file.read(size)
                before.append(len(data))
                return data

        channel.opened = Counting  # type: ignore[assignment]
        channel.upload(NAME, file)
        channel.upload(NAME, file)
    assert site.fleet.receiver.files == [(DEVICE, NAME, file.read_bytes())]
    assert 0 < sum(before) < file.stat().st_size - 300_000


def test_an_empty_file_arrives(site: Site, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with site.channel() as channel:
        channel.upload(NAME, tmp_path / "empty")
    assert site.fleet.receiver.files == [(DEVICE, NAME, b"")]


def test_a_state_store_that_is_away_costs_a_report_a_try(site: Site) -> None:
    site.fleet.publish()
    with site.channel() as channel:
        assert site.serving is not None
        serving = site.serving
        eventually(lambda: heard(site.fleet, serving))
        pointer = eventually(channel.poller.turn) and eventually(channel.pointer)
        site.fleet.state.away = True
        with pytest.raises(UnavailableError):
            channel.send_report(REPORT.encoded())
        channel.poller.turn()
        assert channel.pointer() == pointer
        assert channel.access().state == "ok"
        site.fleet.state.away = False
        channel.send_report(REPORT.encoded())


def operators(site: Site) -> Requests:
    rig = site.fleet.rig
    return Requests(rig.roster, lambda: rig.state, rig.keys)


def silent(device: str) -> UnavailableError:
    return UnavailableError(f"{device} says nothing")


def test_an_operators_request_is_answered_while_the_device_waits(site: Site) -> None:
    with site.channel(wait_s=50.0) as channel:
        channel.serve(lambda one: Reply(200, {"x-path": one.path}, (one.body or b"") * 2))
        channel.pointer()
        for number in range(3):
            found = operators(site).ask(
                DEVICE, f"/v2/{number}", b"two", {}, 60.0, why_silent=silent
            )
            assert (found.status, found.body) == (200, b"twotwo")
            assert found.headers["x-path"] == f"/v2/{number}"


def test_an_answer_that_is_too_long_says_so(site: Site) -> None:
    with site.channel(wait_s=50.0) as channel:
        channel.serve(lambda _: Reply(200, {}, b"x" * (1 << 20)))
        channel.pointer()
        with pytest.raises(EdgeFleetError, match="go through a gateway"):
            operators(site).ask(DEVICE, "/v2", None, {}, 60.0, why_silent=silent)


def test_a_device_is_asked_nothing_that_is_for_another(site: Site) -> None:
    asked: list[Request] = []

    def ask(request: Request) -> Reply:
        asked.append(request)
        return Reply(200, {}, b"")

    site.fleet.rig.invite("cam-2")
    with site.channel(wait_s=50.0) as channel:
        channel.serve(ask)
        channel.pointer()
        with pytest.raises(UnavailableError, match="cam-2 says nothing"):
            operators(site).ask("cam-2", "/v2/for-2", None, {}, 0.5, why_silent=silent)
        operators(site).ask(DEVICE, "/v2/for-1", None, {}, 60.0, why_silent=silent)
    assert [one.path for one in asked] == ["/v2/for-1"]


def test_a_revoked_device_is_told_and_comes_back_when_it_is_let_in(site: Site) -> None:
    pointer = site.fleet.publish()
    with site.channel() as channel:
        eventually(lambda: channel.poller.turn() and channel.pointer())
        site.change(revoked=True)
        eventually(lambda: channel.poller.turn() and channel.access().state == "denied")
        with pytest.raises(AccessDeniedError):
            channel.send_report(REPORT.encoded())
        assert channel.pointer() == pointer.encoded()
        site.change(revoked=False)
        eventually(lambda: channel.poller.turn() and channel.access().state == "ok")


def test_after_months_in_a_drawer_the_identity_is_enough(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.enrol(ago=timedelta(days=200))  # its certificate lasted 90 days
    pointer = site.fleet.publish()
    site.start()
    try:
        with site.channel() as channel:
            before = site.record().certificates[-1].serial
            eventually(lambda: channel.poller.turn() and channel.pointer())
            assert channel.pointer() == pointer.encoded()
            assert channel.access().state == "ok"
        assert site.record().certificates[-1].serial != before
    finally:
        site.close()


def test_after_years_it_is_told_what_to_do(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.enrol(ago=timedelta(days=1000))
    site.start()
    try:
        with site.channel() as channel:
            assert channel.pointer() is None
            said = channel.access()
        assert said.state == "expired"
        assert "edgefleet device enroll" in str(said.detail)
    finally:
        site.close()


@pytest.mark.parametrize("days", [-20_000, -400, 4000])
def test_a_clock_that_is_off_by_years_keeps_nobody_away(site: Site, days: int) -> None:
    pointer = site.fleet.publish()
    here = datetime.now(UTC).timestamp() + days * 86_400
    with site.channel(now=lambda: here) as channel:
        eventually(lambda: channel.poller.turn() and channel.pointer())
        assert channel.pointer() == pointer.encoded()
        assert "clock" in str(channel.access().detail)
