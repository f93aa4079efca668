"""What goes to IoT Hub, against the vendor's own contracts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from edgefleet.errors import InvalidInputError, LimitExceededError, ProfileError
from edgefleet.testing.kit import samples
from edgefleet_azure import manifests
from edgefleet_azure.cloud.hub_rest import Answer, Request
from edgefleet_azure.manifests import Grant
from edgefleet_azure.settings import AzureSettings
from providers.azure.tests.cloud.hub_contract import HubContract

DOCKERFILE = Path(__file__).parents[3] / "device_runtime" / "container" / "Dockerfile"
SETTINGS = AzureSettings(
    storage_url="https://plant.blob.core.windows.net",
    subscription="00000000-1111-2222-3333-444444444444",
    resource_group="plant",
    hubs=("plant.azure-devices.net",),
    prefix="plant-3",
    runtime_image="plant.azurecr.io/edgefleet/runtime:1.0",
)
GRANT = Grant({"read": "sv=2024&sig=abc", "expires": "2027-01-01T00:00:00Z"}, 4)
GROUPS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._\-]{0,61}[A-Za-z0-9])?", fullmatch=True)


def documents() -> dict[str, dict[str, Any]]:
    return {
        "base": manifests.base(SETTINGS),
        "layer": manifests.layer("plant-3", "Line.3", samples.pointer(7, epoch=2), GRANT),
    }


def schema(contracts: Path, name: str) -> Draft4Validator:
    text = (contracts / "iotedge" / f"azure-iot-{name}.json").read_text(encoding="utf-8")
    return Draft4Validator(json.loads(text))


@pytest.mark.parametrize(
    "contract, modules",
    [
        ("edge-deployment-2.0", ("$edgeAgent", "$edgeHub")),
        ("edgeagent-deployment-1.1", ("$edgeAgent",)),
        ("edgehub-deployment-1.2", ("$edgeHub",)),
    ],
)
def test_the_base_is_what_iot_edge_reads(
    contracts: Path, contract: str, modules: tuple[str, ...]
) -> None:
    content = manifests.base(SETTINGS)["content"]["modulesContent"]
    assert content.keys() == {"$edgeAgent", "$edgeHub"}
    shown = {key: content[key] for key in modules}
    whole = {"modulesContent": shown} if len(modules) > 1 else shown
    schema(contracts, contract).validate(whole)


@pytest.mark.parametrize("name", ["base", "layer"])
def test_configurations_are_what_the_hub_reads(contracts: Path, name: str) -> None:
    document = documents()[name]
    body = json.dumps(document).encode()
    request = Request("PUT", f"/configurations/{document['id']}", {}, {}, body)
    HubContract(contracts).check("Configuration_CreateOrUpdate", request, Answer(200, document))


def test_the_contract_refuses_a_base_that_is_wrong(contracts: Path) -> None:
    content = manifests.base(SETTINGS)["content"]
    content["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["edgefleet"].pop(
        "status"
    )
    assert not schema(contracts, "edge-deployment-2.0").is_valid(content)


def test_the_base_leaves_the_property_of_layers_alone() -> None:
    assert manifests.MODULE not in manifests.base(SETTINGS)["content"]["modulesContent"]


def test_the_runtime_has_its_store_and_socket_directory_from_the_host() -> None:
    agent = manifests.base(SETTINGS)["content"]["modulesContent"]["$edgeAgent"]
    module = agent["properties.desired"]["modules"][manifests.MODULE]
    options = json.loads(module["settings"]["createOptions"])
    assert options["HostConfig"]["Binds"] == [
        "/var/lib/edgefleet:/var/lib/edgefleet", "/run/edgefleet:/run/edgefleet",
    ]  # fmt: skip
    assert module["restartPolicy"] == "always"


def test_the_runtime_is_no_root_and_writes_to_its_own_folders_only() -> None:
    agent = manifests.base(SETTINGS)["content"]["modulesContent"]["$edgeAgent"]
    module = agent["properties.desired"]["modules"][manifests.MODULE]
    options = json.loads(module["settings"]["createOptions"])
    module = DOCKERFILE.read_text(encoding="utf-8").partition(" AS iotedge\n")[2]
    (user,) = re.findall(r"^USER (.*)$", module, re.MULTILINE)
    assert options["User"] == user
    host = options["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert list(host["Tmpfs"]) == ["/tmp"]


def test_hot_events_have_a_route_with_priority_and_time_to_live() -> None:
    hub = manifests.base(SETTINGS)["content"]["modulesContent"]["$edgeHub"]["properties.desired"]
    (route,) = hub["routes"].values()
    assert route["route"] == "FROM /messages/modules/edgefleet/outputs/hot INTO $upstream"
    assert route["priority"] == 0
    assert route["timeToLiveSecs"] > 0


def test_a_layer_sets_one_property_of_one_module() -> None:
    layer = documents()["layer"]["content"]["modulesContent"]
    assert {module: list(content) for module, content in layer.items()} == {
        "edgefleet": ["properties.desired.edgefleet"]
    }


def test_a_base_without_an_image_says_which_setting_is_missing() -> None:
    with pytest.raises(ProfileError, match="runtime_image"):
        manifests.base(SETTINGS.model_copy(update={"runtime_image": None}))


@pytest.mark.parametrize("module, version", [("$edgeAgent", "2.0"), ("$edgeHub", "1.3")])
def test_schema_versions_that_are_unknown_are_refused(module: str, version: str) -> None:
    content = {module: {"properties.desired": {"schemaVersion": version}}}
    with pytest.raises(InvalidInputError, match=version):
        manifests.check_schemas(content)


@given(GROUPS, GROUPS, st.integers(0, 200), st.integers(1, 9_999_999))
def test_a_layer_is_read_back_and_taken_by_no_other_group(
    group: str, other: str, epoch: int, number: int
) -> None:
    pointer = samples.pointer(number, epoch=epoch)
    document = manifests.layer("plant-3", group, pointer, None)
    found = manifests.read_layer(document, "plant-3")
    assert found is not None
    assert (found.group, found.pointer) == (group, pointer)
    assert len(document["id"]) <= 128
    assert document["id"] == document["id"].lower()
    assert manifests.read_layer(document, "plant") is None
    if other != group:
        assert manifests.layer("plant-3", other, pointer, None)["id"] != document["id"]


@given(st.tuples(st.integers(0, 200), st.integers(1, 9_999_999)),
       st.tuples(st.integers(0, 200), st.integers(1, 9_999_999)))  # fmt: skip
def test_priorities_rise_with_pointers(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = sorted((one, other))
    assert manifests.priority_of(first) <= manifests.priority_of(second)
    assert (manifests.priority_of(first) == manifests.priority_of(second)) == (one == other)
    assert manifests.BASE_PRIORITY < manifests.priority_of(first) < 1 << 31


@pytest.mark.parametrize("pair", [(0, 10_000_000), (300, 1)])
def test_a_pointer_beyond_what_priorities_hold_is_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(LimitExceededError, match="priorities"):
        manifests.priority_of(pair)


def test_a_deployment_of_others_is_no_layer_of_ours() -> None:
    ours = documents()["layer"]
    assert manifests.read_layer({**ours, "labels": {}}, "plant-3") is None
    assert manifests.read_layer({**ours, "id": "theirs"}, "plant-3") is None
