"""The fleet's template: two languages that say the same, and the least that works."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgefleet_azure.cloud.arm_resources import KINDS
from edgefleet_azure.cloud.arm_template import Declared, Surroundings, read
from edgefleet_azure.description import Description, Joined, Parameter, Resource, arm, bicep
from edgefleet_azure.permissions import OPERATOR, is_data, operators
from edgefleet_azure.resource_names import ResourceNames, name_of_host
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.template import ROLE, STORAGE, description
from providers.azure.tests.install.bicep_reader import BicepFile

ADA = "00000000-0000-0000-0000-00000000ada0"
SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
AROUND = Surroundings(SUBSCRIPTION, "plant", "westeurope", lambda _: {"primaryKey": "s3cr=t"})


@pytest.fixture
def settings() -> AzureSettings:
    return AzureSettings(
        storage_url="https://plantamodels.blob.core.windows.net",
        subscription=SUBSCRIPTION,
        resource_group="plant",
        prefix="line",
        workspace="plant-ml",
        hubs=("plant-a.azure-devices.net", "plant-b.azure-devices.net"),
        runtime_image="plantimages.azurecr.io/edgefleet/runtime:1.0",
        dps="plant-dps.azure-devices-provisioning.net",
        provision_group="new",
        operators=(ADA,),
    )


def values(template: dict[str, Any], *, made: bool) -> dict[str, Any]:
    return {
        name: {"value": made}
        for name, one in template["parameters"].items()
        if one["type"] == "bool"
    }


def functions() -> dict[str, Any]:
    """What calls in Bicep answer, told by hand and not by the reader of ARM's JSON."""

    def resource_id(type_: str, *names: str) -> str:
        namespace, *kinds = type_.split("/")
        path = "".join(f"/{kind}/{name}" for kind, name in zip(kinds, names, strict=True))
        return f"{AROUND.group_id}/providers/{namespace}{path}"

    return {
        "resourceGroup": lambda: {"id": AROUND.group_id, "location": "westeurope"},
        "resourceId": resource_id,
        "subscriptionResourceId": lambda type_, name: (
            f"/subscriptions/{SUBSCRIPTION}/providers/{type_}/{name}"
        ),
        "listKeys": lambda identity, version: {"primaryKey": "s3cr=t"},
    }


def from_bicep(text: str, given: dict[str, Any]) -> dict[str, Declared]:
    """What a Bicep file makes, by resource id."""
    plain = {name: one["value"] for name, one in given.items()}
    file = BicepFile(text, plain, functions())
    resource_id = functions()["resourceId"]
    ids = {one.symbol: resource_id(one.type, *file.name(one).split("/")) for one in file.resources}
    found = {}
    for one in file.resources:
        identity = ids[one.symbol]
        if "scope" in one.names:
            inside = identity.partition("/providers/")[2]
            identity = f"{ids[one.names['scope']]}/providers/{inside}"
        if one.made and not one.existing:
            content = {key: value for key, value in one.content.items() if key != "name"}
            name = identity.rpartition("/")[2]
            found[identity] = Declared(identity, one.type, one.version, name, content)
    return found


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_both_languages_make_the_same_resources(settings: AzureSettings, whose: str) -> None:
    made = whose == "ours"
    described = description(settings)
    template, given = arm(described), values(arm(described), made=made)
    declared = {one.id: one for one in read(template, given, AROUND)}
    assert from_bicep(bicep(described), given) == declared
    assert any(one.type == STORAGE for one in declared.values()) is made


def test_both_languages_have_the_same_parameters(settings: AzureSettings) -> None:
    described = description(settings)
    told = {name: one["type"] for name, one in arm(described)["parameters"].items()}
    file = BicepFile(bicep(described), values(arm(described), made=True), functions())
    assert file.parameters == told
    assert told["location"] == "string"


def test_both_languages_order_resources_alike(settings: AzureSettings) -> None:
    described = description(settings)
    file = BicepFile(bicep(described), values(arm(described), made=True), functions())
    needed = {
        one.symbol: {
            *filter(None, [one.names.get("parent"), one.names.get("scope")]),
            *one.names.get("dependsOn", ()),
        }
        for one in file.resources
        if not one.existing
    }
    existing = {one.symbol for one in file.resources if one.existing}
    by_id = {json.dumps(arm_id(described, one)): one.symbol for one in described.resources}
    for raw, one in zip(
        arm(described)["resources"],
        (one for one in described.resources if not one.existing),
        strict=True,
    ):
        told = {by_id[json.dumps(identity)] for identity in raw.get("dependsOn", ())}
        assert told == needed[one.symbol] - existing


def arm_id(described: Description, one: Resource) -> str:
    """The id that ARM's JSON depends on a resource by."""
    bare = Resource(one.symbol, one.type, one.version, one.name)
    after = Resource("after", "A/b", "1", "c", needs=(one.symbol,))
    template = arm(Description(described.parameters, (bare, after)))
    return str(template["resources"][-1]["dependsOn"][0])


def test_text_with_signs_of_either_language_arrives_as_it_is() -> None:
    said = "it's ${not} a \\ value\n[nor this]"
    content = {"properties": {"said": said, "list": ["[x]", "'"], "a-b": Parameter("p")}}
    joined = Resource("two", "A/b", "1", "two", {"properties": Joined(("it's ", Parameter("p")))})
    described = Description(
        {"p": ("string", "p", None)}, (Resource("one", "A/b", "1", "one", content), joined)
    )
    given = {"p": {"value": "v$"}}
    declared = {one.id: one for one in read(arm(described), given, AROUND)}
    first, second = declared.values()
    assert first.content["properties"] == {"said": said, "list": ["[x]", "'"], "a-b": "v$"}
    assert second.content["properties"] == "it's v$"
    assert from_bicep(bicep(described), given) == declared


@pytest.mark.skipif(shutil.which("bicep") is None, reason="no Bicep compiler is on the path")
def test_the_bicep_compiler_makes_the_same_of_it(settings: AzureSettings, tmp_path: Path) -> None:
    described = description(settings)
    path = tmp_path / "fleet.bicep"
    path.write_text(bicep(described), encoding="utf-8")
    subprocess.run(["bicep", "build", path], check=True, timeout=60)
    compiled = json.loads((tmp_path / "fleet.json").read_text(encoding="utf-8"))
    ours = arm(described)
    told = {(one["type"], one["apiVersion"]) for one in ours["resources"]}
    assert {(one["type"], one["apiVersion"]) for one in compiled["resources"]} == told
    assert compiled["parameters"].keys() == ours["parameters"].keys()


def test_every_type_of_the_template_is_one_that_the_mock_checks(settings: AzureSettings) -> None:
    template = arm(description(settings))
    kinds = {one["type"].lower() for one in template["resources"]}
    assert kinds <= KINDS.keys()


def test_operators_get_what_their_parts_need_at_each_place_and_no_more(
    settings: AzureSettings,
) -> None:
    template = arm(description(settings))
    given = values(template, made=True)
    roles = [one for one in read(template, given, AROUND) if one.type == ROLE]
    needed = operators(OPERATOR.keys() - {"install", "receiving", "shared registry"})
    del needed["subscription"]  # beyond the group that the template is deployed to
    granted = {}
    for one in roles:
        (held,) = one.content["properties"]["permissions"]
        place = one.content["properties"]["roleName"].split()[2]
        granted[place] = (set(held["actions"]), set(held["dataActions"]))
    assert granted == {
        place: (
            {action for action in actions if not is_data(action)},
            {action for action in actions if is_data(action)},
        )
        for place, actions in needed.items()
    }
    assert not any("*" in action for pair in granted.values() for one in pair for action in one)


def test_nobody_gets_a_role_where_no_operator_is_named(settings: AzureSettings) -> None:
    alone = settings.model_copy(update={"operators": ()})
    kinds = {one["type"] for one in arm(description(alone))["resources"]}
    assert not any(kind.startswith("Microsoft.Authorization") for kind in kinds)


def test_an_image_outside_azure_needs_no_registry(settings: AzureSettings) -> None:
    elsewhere = settings.model_copy(update={"runtime_image": "ghcr.io/plant/runtime:1"})
    kinds = {one["type"] for one in arm(description(elsewhere))["resources"]}
    assert "Microsoft.ContainerRegistry/registries" not in kinds


@pytest.mark.parametrize(
    "host,name",
    [
        ("plant-a.azure-devices.net", "plant-a"),
        ("localhost:1234", "localhost-1234"),
        ("127.0.0.2:99", "127-0-0-2-99"),
    ],
)
def test_a_host_tells_the_name_of_its_service(host: str, name: str) -> None:
    assert name_of_host(host) == name


def test_ids_differ_between_fleets_and_stay_the_same_for_one(settings: AzureSettings) -> None:
    other = settings.model_copy(update={"prefix": "other"})
    assert ResourceNames(settings).guid("role") == ResourceNames(settings).guid("role")
    assert ResourceNames(settings).guid("role") != ResourceNames(other).guid("role")


def test_who_shows_versions_in_a_shared_registry_gets_no_role_on_models_of_the_workspace(
    settings: AzureSettings,
) -> None:
    def held(settings: AzureSettings) -> set[str]:
        roles = [one for one in description(settings).resources if one.type == ROLE]
        permissions = [one.content["properties"]["permissions"][0] for one in roles]
        return {action for one in permissions for action in one["actions"]}

    models = "Microsoft.MachineLearningServices/workspaces/models/versions/write"
    assert models in held(settings)
    shared = held(settings.model_copy(update={"ml_registry": "everybodys"}))
    assert models not in shared
    assert not [one for one in shared if "/registries/assets/" in one], "its owner's to give"
