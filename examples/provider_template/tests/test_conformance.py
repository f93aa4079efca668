"""The conformance kit over the template. It has no trainer, and so not the trainer's suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.fleet import Fleet
from edgefleet.plugins.provider import Role
from edgefleet.profile import Profile
from edgefleet.protocol.digest import blob_path
from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.deployer import DeployerConformance
from edgefleet.testing.kit.devices import AddDevice, enrolling
from edgefleet.testing.kit.fleet import FleetConformance
from edgefleet.testing.kit.gaps import never
from edgefleet.testing.kit.registry import RegistryConformance
from edgefleet.testing.kit.state import StateStoreConformance
from edgefleet.testing.kit.telemetry import TelemetryConformance
from edgefleet_runtime.channels.file import ACCESS_FILE, FileChannel
from edgefleet_template.deployer import MailboxDeployer
from edgefleet_template.mailboxes import Mailboxes
from edgefleet_template.mock import TemplateMock
from edgefleet_template.plugin import TemplateProvider
from edgefleet_template.registry import FolderBlobStore, registry_below
from edgefleet_template.state import SqliteStateStore
from edgefleet_template.telemetry import MailboxTelemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet.interfaces.registry import Registry


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The fleet's folder: as settings with ``root`` here name it."""
    return tmp_path / "edgefleet"


class TestState(StateStoreConformance):
    @pytest.fixture
    def state(self, home: Path) -> SqliteStateStore:
        return SqliteStateStore(home)


class TestBlobs(BlobStoreConformance):
    @pytest.fixture
    def blobs(self, home: Path) -> FolderBlobStore:
        return FolderBlobStore(home)


class TestRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, home: Path) -> Registry:
        return registry_below(home)

    @pytest.fixture
    def corrupt_blob(self, home: Path) -> Callable[[str], None]:
        def corrupt(digest: str) -> None:
            path = home / "models" / blob_path(digest)
            path.write_bytes(bytes(path.stat().st_size))

        return corrupt


class Devices:
    """The devices' end of the channel: the suites play the devices themselves."""

    @pytest.fixture
    def device_end(self, home: Path) -> Callable[[str], FileChannel]:
        mail = Mailboxes(home)
        return lambda name: FileChannel(mail.incoming(name) / "pointer.json", mail.outgoing(name))

    @pytest.fixture
    def expire_access(self, home: Path) -> Callable[[str], Callable[[], None]]:
        def expire(device: str) -> Callable[[], None]:
            access = Mailboxes(home).incoming(device) / ACCESS_FILE
            access.write_text('{"state": "expired", "detail": "share unmounted"}')
            return access.unlink

        return expire


class TestTelemetry(Devices, TelemetryConformance):
    @pytest.fixture
    def telemetry(self, home: Path) -> MailboxTelemetry:
        return MailboxTelemetry(home)

    @pytest.fixture
    def add_device(self, home: Path) -> AddDevice:
        return enrolling(self, MailboxDeployer(home, name="template"))


class TestDeployer(Devices, DeployerConformance):
    @pytest.fixture
    def deployer(self, home: Path) -> MailboxDeployer:
        return MailboxDeployer(home, name="template")

    @pytest.fixture
    def foreign(self, home: Path) -> tuple[Callable[[str], None], Callable[[], None]]:
        def plant(group: str) -> None:
            folder = Mailboxes(home).pointer(group).parent
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "notes.txt").write_text("the shift's own")

        def check() -> None:
            kept = [path.read_text() for path in home.glob("groups/*/notes.txt")]
            assert kept == ["the shift's own"]

        return plant, check

    @pytest.fixture
    def forge_report(self, home: Path) -> Callable[[str, str, bytes], None]:
        def forge(by: str, victim: str, report: bytes) -> None:
            mail = Mailboxes(home)
            own = mail.outgoing(by) / "report.json"
            own.symlink_to(mail.outgoing(victim) / "report.json")
            FileChannel(mail.incoming(by), mail.outgoing(by)).send_report(report)

        return forge


class TestFleet(Devices, FleetConformance):
    gaps = dict.fromkeys(
        (
            "test_a_device_is_rolled_back_by_order_until_a_newer_pointer",
            "test_a_request_is_captured_by_order",
            "test_a_candidate_is_measured_by_order",
        ),
        never("devices are asked at their own endpoint, which hears no orders"),
    )

    @pytest.fixture
    def fleet(self, tmp_path: Path) -> Iterator[Fleet]:
        root = {"root": str(tmp_path)}
        profile = Profile(
            name="default",
            base=tmp_path,
            provider="template",
            trainer="local",  # the template has none: a profile takes it from whoever has
            settings={"template": root, "local": root},
        )
        with Fleet(profile) as fleet:
            yield fleet

    @pytest.fixture
    def power_on(self, tmp_path: Path) -> Iterator[AddDevice]:
        mock = TemplateMock(tmp_path)
        mock.start()
        yield mock.add_device
        mock.stop()


def test_the_provider_names_the_role_that_it_lacks() -> None:
    assert set(Role) - TemplateProvider.roles == {Role.TRAINER}
