"""The kit's suite of deployers over IoT Hub on its mock, with devices that the kit plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.testing.kit.deployer import DeployerConformance
from providers.azure.tests.hub_rig import Rig, rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet.testing.kit.devices import DeviceEnd
    from edgefleet_azure.deployer import IotEdgeDeployer


class TestDeployer(DeployerConformance):
    @pytest.fixture
    def azure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
        with rig(tmp_path, monkeypatch) as made:
            made.install()
            yield made

    @pytest.fixture
    def deployer(self, azure: Rig) -> IotEdgeDeployer:
        return azure.deployer

    @pytest.fixture
    def device_end(self, azure: Rig) -> Callable[[str], DeviceEnd]:
        return azure.end

    @pytest.fixture
    def expire_access(self, azure: Rig) -> Callable[[str], Callable[[], None]]:
        def expire(name: str) -> Callable[[], None]:
            group = azure.deployer.device(name).group
            azure.grants.expire(group)

            def renew() -> None:
                azure.grants.renew()
                azure.deployer.layers.renew(group)

            return renew

        return expire

    @pytest.fixture
    def foreign(self, azure: Rig) -> tuple[Callable[[str], None], Callable[[], None]]:
        theirs: dict[str, Any] = {
            "id": "cameras",
            "schemaVersion": "1.0",
            "labels": {"team": "vision"},
            "content": {
                "modulesContent": {
                    "$edgeAgent": {"properties.desired.modules.camera": {"version": "2"}},
                    "camera": {"properties.desired": {"fps": 25}},
                }
            },
            "targetCondition": "tags.edgefleet.group = 'line-3'",
            "priority": 7,
            "metrics": {"queries": {"all": "SELECT deviceId FROM devices"}},
        }
        hub = azure.deployer.hub(azure.settings.hubs[0])

        def plant(group: str) -> None:
            hub.create_configuration(theirs)
            hub.change_twin("a", {"tags": {"rack": 4}}, etag="*")
            desired = {"properties": {"desired": {"logLevel": "debug"}}}
            hub.change_twin("a", desired, etag="*", module="edgefleet")

        def check() -> None:
            found = hub.configuration("cameras")
            assert found is not None
            assert {key: found[key] for key in theirs if key != "metrics"} == {
                key: value for key, value in theirs.items() if key != "metrics"
            }
            assert found["metrics"]["queries"] == theirs["metrics"]["queries"]
            device, module = hub.twin("a"), hub.twin("a", "edgefleet")
            assert device is not None
            assert module is not None
            assert device["tags"]["rack"] == 4
            assert module["properties"]["desired"]["logLevel"] == "debug"

        return plant, check

    @pytest.fixture
    def forge_report(self, azure: Rig) -> Callable[[str, str, bytes], None]:
        def forge(by: str, victim: str, report: bytes) -> None:
            named = report.replace(
                b"{", f'{{"device":"{victim}","deviceId":"{victim}",'.encode(), 1
            )
            azure.end(by).send_report(named)

        return forge
