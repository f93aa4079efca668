"""Devices of the mock as a deployer sees them, over IoT Hub's own API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.edge_fleet import RUNTIME_IMAGE, DeviceFleet
from edgefleet_azure.deployer import IotEdgeDeployer
from edgefleet_azure.manifests import MODULE, base
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore

CAM = "cam-1"


class Plant:
    """A mock cloud with a deployer whose fleet is installed, and devices."""

    def __init__(self, folder: Path, cloud: AzureMock) -> None:
        self.folder, self.cloud = folder, cloud
        self.settings = AzureSettings(**{**cloud.settings, "runtime_image": RUNTIME_IMAGE})
        clients = Clients(self.settings)
        store = BlobStateStore(clients, self.settings)
        self.deployer = IotEdgeDeployer(clients, self.settings, state=lambda: store)
        self.deployer.hub(self.settings.hubs[0]).create_configuration(base(self.settings))
        self.devices = DeviceFleet(cloud.stage, folder)

    def started(self) -> int:
        """How often a device said that it started; 0 before its first report."""
        report = self.deployer.device(CAM).report
        return 0 if report is None else report.health.starts


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    cloud = AzureMock(tmp_path / "azure")
    cloud.start()
    for key, value in cloud.authority.alone(cloud.environment).items():
        monkeypatch.setenv(key, value)
    plant = Plant(tmp_path / "devices", cloud)
    with closing(plant.deployer):
        yield plant
    plant.devices.site.stop()
    cloud.stop()


def test_a_deployer_reads_what_a_device_reports(plant: Plant) -> None:
    plant.devices.add(plant.deployer, CAM, group="line-3", labels={"target": "jetson-orin"})
    eventually(plant.started)
    info = plant.deployer.device(CAM)
    assert info.group == "line-3"
    assert info.report is not None
    assert info.report.labels["target"] == "jetson-orin"
    assert info.report.health.pid == plant.devices.site.pid(CAM, MODULE)


def test_a_deployer_asks_a_device_by_direct_method(plant: Plant) -> None:
    plant.devices.add(plant.deployer, CAM, group="line-3", labels={})
    eventually(plant.started)
    assert plant.deployer.invoke(CAM, "/v2/health/live").status == 200


def test_devices_go_on_where_they_were(plant: Plant) -> None:
    plant.devices.add(plant.deployer, CAM, group="line-3", labels={})
    eventually(plant.started)
    plant.devices.shut_down()
    kept = plant.devices.kept()
    plant.devices = DeviceFleet(plant.cloud.stage, plant.folder)
    plant.devices.restore(kept)
    eventually(lambda: plant.started() == 2)


def test_a_mock_that_stops_leaves_no_process_and_no_socket(tmp_path: Path) -> None:
    cloud = AzureMock(tmp_path / "azure")
    cloud.start()
    try:
        cloud.add_device(CAM, group="line-3")
        pid = cloud.fleet.site.pid(CAM, MODULE)
        assert pid is not None
        words = Path(f"/proc/{pid}/cmdline")
        eventually(
            lambda: "--uds" in words.read_text()
        )  # a process that starts is its parent's yet
        command = words.read_text().split("\0")
    finally:
        cloud.stop()
    assert not Path(f"/proc/{pid}").exists()
    socket = Path(command[command.index("--uds") + 1])
    assert not socket.exists()
    assert not socket.parents[2].exists()
