"""Whole devices that pull: a reconciler or a process, over real sockets and certificates."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from device_runtime.tests.channels.pull.conftest import Make
from device_runtime.tests.channels.pull.small_authority import FLEET as SMALL_FLEET
from device_runtime.tests.channels.pull.small_authority import SmallAuthority
from device_runtime.tests.channels.pull.standin import Enrolled, StandIn, serving
from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import OTHER_FLEET, MemoryChannel, Repository
from edgefleet.protocol.documents import encode
from edgefleet.protocol.gateway import WaitingRequest
from edgefleet.protocol.pointer import Pointer
from edgefleet.protocol.report import AccessReport, Report, read_report
from edgefleet.protocol.stick import FOLDER, MEMBERS, RECEIPTS, Members, members_path
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.pull.from_gateway import GatewayChannel
from edgefleet_runtime.channels.pull.identity import IdentityFolder
from edgefleet_runtime.cli import main
from edgefleet_runtime.commands.once import DONE, UNDELIVERED
from edgefleet_runtime.store.sources import Source


class Pulled(MemoryChannel):
    """The pull channel for a rig, which polls when it is offered something."""

    def __init__(self, inner: GatewayChannel, gateway: StandIn) -> None:
        super().__init__()
        self.inner, self.gateway = inner, gateway

    def offer(self, pointer: Pointer | bytes) -> None:
        self.gateway.point(pointer if isinstance(pointer, bytes) else encode(pointer))
        self.inner.pointer()
        self.inner.poller.turn()

    def pointer(self) -> bytes | None:
        self.changed = False
        return self.inner.pointer()

    def access(self) -> AccessReport:
        return self.inner.access()

    def addresses(self) -> tuple[str, ...]:
        return self.inner.addresses()

    def source(self, address: str) -> Source | None:
        return self.inner.source(address)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "fleet")


@pytest.fixture
def rig(tmp_path: Path, repository: Repository, gateway: StandIn, make: Make) -> Rig:
    return Rig(tmp_path, channel=Pulled(make(), gateway), repository=repository)


def published(rig: Rig, gateway: StandIn, factor: float) -> str:
    """A release that lies at the gateway alone."""
    release = rig.repository.release({"digits": rig.repository.fake(factor)})
    hold(gateway, rig.repository)
    return release


def hold(gateway: StandIn, repository: Repository) -> None:
    for path in (repository.source / "blobs" / "sha256").iterdir():
        gateway.put(path.read_bytes())


def test_a_release_comes_from_the_gateway_alone(rig: Rig, gateway: StandIn) -> None:
    rig.deploy(published(rig, gateway, 3.0), sources=[])
    assert rig.factor() == 3.0
    assert rig.condition == "active"


@pytest.mark.parametrize("what", ["replayed", "lower", "same number", "another fleet"])
def test_a_pointer_of_old_is_refused_and_the_release_stays(
    rig: Rig, gateway: StandIn, what: str
) -> None:
    old = rig.repository.pointer(published(rig, gateway, 2.0), sources=[])
    rig.channel.offer(old)
    rig.settle()
    release = published(rig, gateway, 3.0)
    held = rig.deploy(release, sources=[])
    forged = {
        "replayed": old,
        "lower": replace(held, number=1, current=old.current),
        "same number": replace(held, current=old.current),
        "another fleet": replace(held, fleet=OTHER_FLEET, number=99, current=old.current),
    }[what]
    rig.channel.offer(forged)
    rig.settle()
    assert rig.factor() == 3.0
    assert rig.driver.state.pointer == held
    assert any("pointer refused" in error for error in rig.driver.errors)


def test_a_revoked_device_goes_on_serving_and_takes_nothing_new(rig: Rig, gateway: StandIn) -> None:
    rig.deploy(published(rig, gateway, 2.0), sources=[])
    gateway.script[:] = ["problem:403:revoked"] * 100
    rig.deploy(published(rig, gateway, 3.0), sources=[])
    assert rig.factor() == 2.0
    assert rig.driver.outside.access.state == "denied"
    again = rig.restarted()
    again.settle()
    assert again.factor() == 2.0


def test_a_device_that_is_let_in_again_takes_what_waits(rig: Rig, gateway: StandIn) -> None:
    rig.deploy(published(rig, gateway, 2.0), sources=[])
    gateway.script[:] = ["problem:403:revoked"]
    rig.deploy(published(rig, gateway, 3.0), sources=[])
    assert rig.factor() == 2.0
    rig.channel.offer(gateway.pointer or b"")
    rig.settle()
    assert rig.factor() == 3.0


def test_a_portal_on_the_way_stops_no_inference(rig: Rig, gateway: StandIn) -> None:
    rig.deploy(published(rig, gateway, 2.0), sources=[])
    gateway.script[:] = ["html"] * 100
    rig.deploy(published(rig, gateway, 3.0), sources=[])
    assert rig.factor() == 2.0
    assert rig.driver.outside.access.state == "unknown"
    gateway.script.clear()
    rig.channel.offer(gateway.pointer or b"")
    rig.settle()
    assert rig.factor() == 3.0


def test_a_mirror_that_tampers_is_passed_over(
    tmp_path: Path, repository: Repository, enrolled: Enrolled, gateway: StandIn, make: Make
) -> None:
    with serving(StandIn(enrolled.authority)) as mirror:
        channel = make(Enrolled(enrolled.authority, mirror.address, gateway.address))
        rig = Rig(tmp_path, channel=Pulled(channel, mirror), repository=repository)
        release = published(rig, gateway, 2.0)
        mirror.blobs = {digest: b"?" * len(data) for digest, data in gateway.blobs.items()}
        rig.deploy(release, sources=[])
        assert rig.factor() == 2.0
        assert [path for path in mirror.paths() if "/blobs/" in path]


# ----------------------------------------------------------------------------------- processes


@pytest.fixture
def own() -> SmallAuthority:
    return SmallAuthority()


@pytest.fixture
def identity(tmp_path: Path, own: SmallAuthority, gateway: StandIn) -> Path:
    """A device's folder, as ``enroll`` makes it."""
    gateway.context.load_verify_locations(cadata=own.pem)
    folder = tmp_path / "data" / "identity"
    files = IdentityFolder(folder)
    server = gateway.authority.cert_pem.bytes().decode()
    granted = own.grant(files.request())
    files.take(replace(granted, authorities=own.pem + server, gateways=(gateway.address,)))
    return folder


def once(root: Path, *options: str) -> int:
    given = [word for option in options for word in ("-o", option)]
    return main(["once", "--root", str(root), "--channel", "pull", "--timeout", "60", *given])


def test_a_process_with_an_identity_pulls_attests_and_sends(
    tmp_path: Path, repository: Repository, identity: Path, gateway: StandIn
) -> None:
    release = repository.release({"digits": publish(repository, 2.0)})
    hold(gateway, repository)
    pointer = replace(repository.pointer(release, sources=[]), fleet=SMALL_FLEET)
    gateway.point(encode(pointer))
    assert once(tmp_path / "data", f"identity={identity}") == DONE
    report = read_report(gateway.reports[-1])
    assert (report.state, report.running, report.access.state) == ("active", release, "ok")
    assert gateway.files, "its start was told as an event"


def test_its_fleet_is_that_of_the_identity(
    tmp_path: Path, repository: Repository, identity: Path, gateway: StandIn
) -> None:
    gateway.point(encode(repository.pointer(repository.release({}), fleet=OTHER_FLEET)))
    once(tmp_path / "data", f"identity={identity}")
    report = read_report(gateway.reports[-1])
    assert report.wanted is None
    assert any("another fleet" in error for error in report.errors)


def test_offline_at_its_first_start_it_ends_in_order(
    tmp_path: Path, identity: Path, gateway: StandIn
) -> None:
    gateway.script[:] = ["drop"] * 1000
    assert once(tmp_path / "data", f"identity={identity}") == UNDELIVERED


def test_a_process_lives_by_a_stick(
    tmp_path: Path, repository: Repository, own: SmallAuthority, identity: Path
) -> None:
    release = repository.release({"digits": publish(repository, 2.0)})
    root = tmp_path / "usb" / FOLDER
    root.mkdir(parents=True)
    (repository.source / "blobs").rename(root / "blobs")
    pointer = encode(replace(repository.pointer(release, sources=[]), fleet=SMALL_FLEET))
    (root / "pointer.json").write_bytes(pointer)
    (root / MEMBERS).mkdir()
    (root / members_path(pointer)).write_bytes(encode(Members(group="line", devices=("cam-07",))))
    assert once(tmp_path / "data", f"media={tmp_path / 'usb'}", f"identity={identity}") == DONE
    report = read_report((root / RECEIPTS / "cam-07" / "report.json").read_bytes())
    assert (report.state, report.running) == ("active", release)


class Pulling(Device):
    """A process that serves, and pulls from a gateway."""

    def __init__(self, root: Path, repository: Repository, identity: Path) -> None:
        super().__init__(root, repository)
        self._identity = identity

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "edgefleet_runtime", "run", "--exit-with-parent"),
            *("--root", str(self.data), "--channel", "pull", "-o", f"identity={self._identity}"),
        ]


def test_a_process_that_serves_hears_news_and_operators_and_ends_in_order(
    tmp_path: Path, repository: Repository, identity: Path, gateway: StandIn
) -> None:
    def newest() -> Report | None:
        return read_report(gateway.reports[-1]) if gateway.reports else None

    def runs(release: str) -> Report | None:
        report = newest()
        return report if report is not None and report.running == release else None

    def deploy(factor: float) -> str:
        release = repository.release({"digits": publish(repository, factor)})
        hold(gateway, repository)
        pointer = replace(repository.pointer(release, sources=[]), fleet=SMALL_FLEET)
        gateway.point(encode(pointer))
        return release

    first = deploy(2.0)
    with Pulling(tmp_path, repository, identity) as device:
        before = eventually(lambda: runs(first), lambda: device.log)
        second = deploy(3.0)
        after = eventually(lambda: runs(second), lambda: device.log)
        assert after.health.pid == before.health.pid
        with gateway.news:
            gateway.waiting = [WaitingRequest(id="0" * 32, path="/v2/models/digits")]
            gateway.news.notify_all()
        answer = eventually(lambda: gateway.answers.get("0" * 32), lambda: device.log)
        assert b'"status":200' in answer
        assert device.process is not None
        device.process.terminate()
        assert device.process.wait(60) == 0
    last = newest()
    assert last is not None
    assert last.endpoint is None  # it said that it ends
