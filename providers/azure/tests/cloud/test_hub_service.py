"""A hub of the mock cloud, called by the unmodified azure-iot-hub client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager
from azure.iot.hub.models import (
    CloudToDeviceMethod,
    Configuration,
    ConfigurationContent,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from msrest.exceptions import HttpOperationError

from edgefleet_azure.cloud.hub_service import HubService
from edgefleet_azure.cloud.hub_values import MethodReply
from edgefleet_azure.mock import AzureMock
from providers.azure.tests.cloud.hub_contract import HeldRest, HubContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULES = {
    "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {"edgefleet": {}}}},
    "$edgeHub": {"properties.desired": {"schemaVersion": "1.2", "routes": {}}},
}


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMock]:
    cloud = AzureMock(tmp_path)
    cloud.start()
    for name, value in cloud.authority.alone(cloud.environment).items():
        monkeypatch.setenv(name, value)
    yield cloud
    cloud.stop()


@pytest.fixture
def service(cloud: AzureMock, contracts: Path) -> HubService:
    service = cloud.stage.iot_hubs["hub-1"]
    service.rest = HeldRest(service.rest, HubContract(contracts))  # type: ignore[assignment]
    return service


@pytest.fixture
def credential() -> Iterator[Any]:
    from azure.identity import DefaultAzureCredential

    with DefaultAzureCredential() as credential:
        yield credential


@pytest.fixture
def registry(cloud: AzureMock, credential: Any) -> Iterator[Any]:
    (host,) = cloud.settings["hubs"]
    registry = IoTHubRegistryManager.from_token_credential(host, credential)
    yield registry
    registry.protocol.close()


@pytest.fixture
def configurations(cloud: AzureMock, credential: Any) -> Iterator[Any]:
    (host,) = cloud.settings["hubs"]
    manager = IoTHubConfigurationManager.from_token_credential(host, credential)
    yield manager
    manager.protocol.close()


def test_the_client_works_as_with_the_real_hub(
    service: HubService, registry: Any, configurations: Any
) -> None:
    made = registry.create_device_with_sas("cam", "", "", "enabled", iot_edge=True)
    assert made.authentication.symmetric_key.primary_key
    twin = registry.get_twin("cam")
    registry.update_twin("cam", Twin(tags={"group": "line-3"}), twin.etag)
    with pytest.raises(HttpOperationError) as stale:
        registry.update_twin("cam", Twin(tags={"group": "line-4"}), twin.etag)
    assert stale.value.response.status_code == 412
    base = Configuration(
        id="base",
        content=ConfigurationContent(modules_content=MODULES),
        priority=1,
        target_condition="tags.group = 'line-3'",
    )
    configurations.create_configuration(base)
    shown = configurations.get_configuration("base")
    assert shown.system_metrics.results["appliedCount"] == 1
    assert [module.module_id for module in registry.get_modules("cam")] == [
        "$edgeAgent", "$edgeHub", "edgefleet",
    ]  # fmt: skip
    found = registry.query_iot_hub(QuerySpecification(query="SELECT * FROM devices"))
    assert [one.device_id for one in found.items] == ["cam"]
    service.state.on_method("cam", "edgefleet", lambda *_: MethodReply(200, {"ok": 1}))
    method = CloudToDeviceMethod(method_name="status", payload={})
    assert registry.invoke_device_module_method("cam", "edgefleet", method).payload == {"ok": 1}
    registry.replace_module_twin(
        "cam", "edgefleet", Twin(properties=TwinProperties(desired={"a": 1}))
    )
    assert service.state.twin("cam", "edgefleet")["desired"]["a"] == 1
    configurations.delete_configuration("base")
    registry.delete_device("cam")
    assert registry.get_devices() == []
    assert "Query_GetTwins" in service.rest.operations  # type: ignore[attr-defined]


def test_a_hub_goes_on_where_the_mock_stopped(tmp_path: Path, cloud: AzureMock) -> None:
    from edgefleet_azure.cloud.hub_values import Identity

    state = cloud.stage.iot_hubs["hub-1"].state
    state.add(Identity("cam", None, {"type": "none"}, edge=True))
    state.change_twin("cam", None, tags={"a": 1}, desired={"b": {"c": 2}}, replace=False)
    before = state.seen(state.identity("cam"))
    cloud.stop()
    cloud.start()
    state = cloud.stage.iot_hubs["hub-1"].state
    assert state.seen(state.identity("cam")) == before
    assert [one.module for one in state.modules("cam")] == ["$edgeAgent", "$edgeHub"]
