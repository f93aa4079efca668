"""The conformance kit over the local provider. No gaps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.fleet import Fleet
from edgefleet.policy_files import policy_of
from edgefleet.profile import Profile
from edgefleet.protocol.digest import blob_path
from edgefleet.protocol.documents import encode
from edgefleet.protocol.report import AccessReport
from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.deployer import DeployerConformance
from edgefleet.testing.kit.devices import AddDevice, DeviceEnd, enrolling
from edgefleet.testing.kit.fleet import FleetConformance
from edgefleet.testing.kit.receiving import ReceivingConformance
from edgefleet.testing.kit.registry import RegistryConformance
from edgefleet.testing.kit.state import StateStoreConformance
from edgefleet.testing.kit.telemetry import TelemetryConformance
from edgefleet.testing.kit.trainer import TrainerConformance
from edgefleet.testing.mock import FAST_TELEMETRY
from edgefleet_local.deployer import LocalDeployer
from edgefleet_local.devices import Devices
from edgefleet_local.registry import DirectoryBlobStore, LocalRegistry
from edgefleet_local.state import DirectoryStateStore
from edgefleet_local.telemetry import LocalTelemetry
from edgefleet_local.trainer import LocalTrainer
from edgefleet_runtime.channels.file import ACCESS_FILE, FileChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class TestState(StateStoreConformance):
    @pytest.fixture
    def state(self, home: Path) -> DirectoryStateStore:
        return DirectoryStateStore(home)


class TestBlobs(BlobStoreConformance):
    @pytest.fixture
    def blobs(self, home: Path) -> DirectoryBlobStore:
        return DirectoryBlobStore(home)


class TestRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, home: Path) -> LocalRegistry:
        return LocalRegistry(home)

    @pytest.fixture
    def corrupt_blob(self, home: Path) -> Callable[[str], None]:
        def corrupt(digest: str) -> None:
            path = home / "registry" / blob_path(digest)
            path.chmod(0o644)
            path.write_bytes(bytes(path.stat().st_size))

        return corrupt


class TestTrainer(TrainerConformance):
    @pytest.fixture
    def trainer(self, home: Path) -> Iterator[LocalTrainer]:
        trainer = LocalTrainer(home)
        yield trainer
        trainer.close()


class _Devices:
    """Devices that the kit plays: no runtime runs, and this process may start none."""

    @pytest.fixture
    def device_end(self, home: Path) -> Callable[[str], DeviceEnd]:
        devices = Devices(home)

        def end(name: str) -> DeviceEnd:
            return FileChannel(devices.channel(name) / "pointer.json", devices.outbox(name))

        return end

    @pytest.fixture
    def expire_access(self, home: Path) -> Callable[[str], Callable[[], None]]:
        def expire(name: str) -> Callable[[], None]:
            path = Devices(home).channel(name) / ACCESS_FILE
            path.write_bytes(encode(AccessReport(state="expired", detail="token of yesterday")))
            return path.unlink

        return expire


class TestDeployer(_Devices, DeployerConformance):
    @pytest.fixture
    def deployer(self, home: Path) -> LocalDeployer:
        return LocalDeployer(home, supervise=False)

    @pytest.fixture
    def foreign(self, home: Path) -> tuple[Callable[[str], None], Callable[[], None]]:
        planted: dict[Path, bytes] = {}

        def plant(group: str) -> None:
            planted[home / "groups" / group / "note.txt"] = b"somebody else's"
            planted[home / "groups" / "README"] = b"not a group"
            for path, data in planted.items():
                path.write_bytes(data)

        def check() -> None:
            assert {path: path.read_bytes() for path in planted} == planted

        return plant, check

    @pytest.fixture
    def forge_report(self, home: Path) -> Callable[[str, str, bytes], None]:
        devices = Devices(home)

        def forge(by: str, victim: str, report: bytes) -> None:
            # Within its own folder a device may write what it likes.
            below = devices.outbox(by) / "devices" / victim
            below.mkdir(parents=True)
            (below / "report.json").write_bytes(report)
            channel = FileChannel(devices.channel(by) / "pointer.json", devices.outbox(by))
            (devices.outbox(by) / "report.json").symlink_to(devices.outbox(victim) / "report.json")
            channel.send_report(report)
            channel.upload(f"../{victim}/report.json", below / "report.json")

        return forge


class TestTelemetry(_Devices, TelemetryConformance):
    @pytest.fixture
    def telemetry(self, home: Path) -> LocalTelemetry:
        return LocalTelemetry(home)

    @pytest.fixture
    def add_device(self, home: Path) -> AddDevice:
        return enrolling(self, LocalDeployer(home, supervise=False))


class TestReceiving(ReceivingConformance):
    @pytest.fixture
    def telemetry(self, home: Path) -> LocalTelemetry:
        return LocalTelemetry(home)


class TestFleet(_Devices, FleetConformance):
    @pytest.fixture
    def fleet(self, home: Path) -> Iterator[Fleet]:
        profile = Profile(
            name="test",
            base=home.parent,
            provider="local",
            recorded=policy_of(FAST_TELEMETRY, "the mock"),
            settings={"local": {"root": ".", "supervise": False}},
        )
        with Fleet(profile) as fleet:
            yield fleet

    @pytest.fixture
    def power_on(self, home: Path) -> Iterator[AddDevice]:
        running = LocalDeployer(home)

        def add(name: str, /, *, group: str, labels: Mapping[str, str] | None = None) -> None:
            running.enroll(name, group=group, labels=labels)

        yield add
        running.close()
