"""The mock's Azure Resource Manager refuses what the real one refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import HttpResponseError

from edgefleet_azure.cloud.arm_template import Surroundings, TemplateError, read
from edgefleet_azure.deployment import DEPLOYMENTS_API
from edgefleet_azure.description import SCHEMA
from edgefleet_azure.errors import code_of
from edgefleet_azure.template import ASSIGNMENT, ROLE, ROLES_API, STORAGE_API

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.cloud.management import Management
    from edgefleet_azure.mock import AzureMock
    from edgefleet_azure.settings import AzureSettings

AROUND = Surroundings("s", "g", "westeurope", lambda _: {"primaryKey": "k"})
ACCOUNT: dict[str, Any] = {
    "type": "Microsoft.Storage/storageAccounts",
    "apiVersion": STORAGE_API,
    "name": "plantamodels",
    "location": "westeurope",
    "sku": {"name": "Standard_LRS"},
    "kind": "StorageV2",
    "properties": {},
}
GUIDS = [f"0000000{number}-0000-0000-0000-000000000000" for number in range(9)]


def template(*resources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"$schema": SCHEMA, "contentVersion": "1.0.0.0", "resources": [*resources], **more}


def names(found: Iterable[Any]) -> list[str]:
    return [one.name for one in found]


def refused(document: Any, given: dict[str, Any] | None = None) -> str:
    with pytest.raises(TemplateError) as error:
        read(document, given or {}, AROUND)
    return str(error.value)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"contentVersion": "1", "resources": []},
        {"$schema": SCHEMA, "resources": []},
        template(outputs={}),
        template({"type": "A/b", "name": "c"}),
        template({**ACCOUNT, "colour": "red"}),
    ],
)
def test_what_is_no_template_is_refused(document: Any) -> None:
    assert refused(document)


def test_a_parameter_without_value_is_refused() -> None:
    document = template(parameters={"p": {"type": "bool"}})
    assert "'p' is not provided" in refused(document)


def test_a_parameter_that_is_not_declared_is_refused() -> None:
    assert "'p' in the parameters file are not valid" in refused(template(), {"p": {"value": 1}})


def test_a_parameter_of_another_type_is_refused() -> None:
    document = template(parameters={"p": {"type": "bool"}})
    assert "'p' is not valid" in refused(document, {"p": {"value": "yes"}})


def test_a_name_with_more_or_fewer_parts_than_its_type_is_refused() -> None:
    assert "incorrect segment lengths" in refused(template({**ACCOUNT, "name": "a/b"}))


def test_a_resource_that_stands_there_twice_is_refused() -> None:
    assert "defined multiple times" in refused(template(ACCOUNT, {**ACCOUNT, "sku": {}}))


def test_a_dependency_that_is_not_in_the_template_is_refused() -> None:
    missing = "[resourceId('A/b', 'c')]"
    assert "is not defined" in refused(template({**ACCOUNT, "dependsOn": [missing]}))


def test_a_circle_of_dependencies_is_refused() -> None:
    def one(name: str, other: str) -> dict[str, Any]:
        needs = [f"[resourceId('A/b', '{other}')]"]
        return {"type": "A/b", "apiVersion": "1", "name": name, "dependsOn": needs}

    assert "Circular dependency" in refused(template(one("x", "y"), one("y", "x")))


@pytest.mark.parametrize("text", ["[nope()]", "[concat('x']", "[resourceId('A/b') extra]"])
def test_an_expression_that_cannot_be_read_is_refused(text: str) -> None:
    assert refused(template({**ACCOUNT, "name": text}))


def test_resources_come_behind_those_that_they_need() -> None:
    first = {"type": "A/b", "apiVersion": "1", "name": "first"}
    needs = ["[resourceId('A/b', 'first')]"]
    second = {"type": "A/b", "apiVersion": "1", "name": "second", "dependsOn": needs}
    assert names(read(template(second, first), {}, AROUND)) == ["first", "second"]


def test_nobody_waits_for_a_resource_whose_condition_is_false() -> None:
    first = {"type": "A/b", "apiVersion": "1", "name": "first", "condition": False}
    needs = ["[resourceId('A/b', 'first')]"]
    second = {"type": "A/b", "apiVersion": "1", "name": "second", "dependsOn": needs}
    assert names(read(template(second, first), {}, AROUND)) == ["second"]


# Deployments, over HTTP


@pytest.fixture
def put(clients: Clients, settings: AzureSettings) -> Callable[..., Any]:
    """Sends a template; gives the deployment as it ended."""

    def send(document: Any, name: str = "theirs", *, wait: bool = True) -> Any:
        path = f"{settings.group_path}/providers/Microsoft.Resources/deployments/{name}"
        properties = {"template": document, "mode": "Incremental"}
        body = {"properties": properties}
        clients.arm("PUT", path, api_version=DEPLOYMENTS_API, body=body)
        return clients.arm("GET", path, api_version=DEPLOYMENTS_API).json() if wait else None

    return send


def code(act: Callable[[], object]) -> str:
    with pytest.raises(HttpResponseError) as error:
        act()
    return code_of(error.value)


def test_a_deployment_may_not_start_while_one_of_its_name_runs(put: Callable[..., Any]) -> None:
    put(template(ACCOUNT), wait=False)
    assert code(lambda: put(template(ACCOUNT))) == "DeploymentActive"
    assert put(template(ACCOUNT), "another")["properties"]["provisioningState"] == "Succeeded"


@pytest.mark.parametrize(
    "change,expected",
    [
        ({"name": "Not-An-Account"}, "AccountNameInvalid"),
        ({"apiVersion": "1999-01-01"}, "NoRegisteredProviderFound"),
        ({"type": "Microsoft.Nowhere/things"}, "NoRegisteredProviderFound"),
        ({"properties": {"colour": "red"}}, "BadRequest"),
    ],
)
def test_what_a_provider_refuses_is_refused_before_anything_is_made(
    change: dict[str, Any], expected: str, put: Callable[..., Any], management: Management
) -> None:
    other = {**ACCOUNT, "name": "goesfirst"}
    assert code(lambda: put(template(other, {**ACCOUNT, **change}))) == expected
    there = {one["name"] for one in management.resources.of_type(ACCOUNT["type"])}
    assert "goesfirst" not in there


def test_a_deployment_that_fails_says_why_and_keeps_what_was_made(
    put: Callable[..., Any], management: Management
) -> None:
    lost = {
        "type": "Microsoft.Storage/storageAccounts/blobServices/containers",
        "apiVersion": STORAGE_API,
        "name": "nobodys/default/box",
        "properties": {},
    }
    done = put(template(ACCOUNT, lost))["properties"]
    assert done["provisioningState"] == "Failed"
    assert [one["code"] for one in done["error"]["details"]] == ["ParentResourceNotFound"]
    there = {one["name"] for one in management.resources.of_type(ACCOUNT["type"])}
    assert "plantamodels" in there


def role(guid: str, name: str = "r") -> dict[str, Any]:
    return {
        "type": ROLE,
        "apiVersion": ROLES_API,
        "name": guid,
        "properties": {"roleName": name, "permissions": [{"actions": ["*/read"]}]},
    }


def assignment(guid: str, principal: str, role_guid: str) -> dict[str, Any]:
    definition = f"[subscriptionResourceId('{ROLE}', '{role_guid}')]"
    return {
        "type": ASSIGNMENT,
        "apiVersion": ROLES_API,
        "name": guid,
        "properties": {"principalId": principal, "roleDefinitionId": definition},
        "dependsOn": [f"[resourceId('{ROLE}', '{role_guid}')]"],
    }


def failure(done: Any) -> str:
    return str(done["properties"]["error"]["details"][0]["code"])


def test_a_role_is_assigned_to_somebody_once(put: Callable[..., Any], cloud: AzureMock) -> None:
    ada = cloud.add_user("ada", ())
    a, b, c, *_ = GUIDS
    both = template(role(a), assignment(b, ada, a), assignment(c, ada, a))
    assert failure(put(both)) == "RoleAssignmentExists"


def test_an_assignment_cannot_be_moved_to_somebody_else(
    put: Callable[..., Any], cloud: AzureMock
) -> None:
    ada, bob = cloud.add_user("ada", ()), cloud.add_user("bob", ())
    a, b, *_ = GUIDS
    put(template(role(a), assignment(b, ada, a)))
    moved = put(template(role(a), assignment(b, bob, a)))
    assert failure(moved) == "RoleAssignmentUpdateNotPermitted"


def test_two_roles_may_not_have_one_name(put: Callable[..., Any]) -> None:
    a, b, *_ = GUIDS
    assert failure(put(template(role(a), role(b)))) == "RoleDefinitionWithSameNameExists"


def test_a_role_that_is_assigned_cannot_be_deleted(
    put: Callable[..., Any], cloud: AzureMock, clients: Clients, management: Management
) -> None:
    a, b, *_ = GUIDS
    put(template(role(a), assignment(b, cloud.add_user("ada", ()), a)))
    path = f"{management.group}/providers/{ROLE}/{a}"
    assert (
        code(lambda: clients.arm("DELETE", path, api_version=ROLES_API))
        == "RoleDefinitionHasAssignments"
    )


def test_whoever_may_not_write_a_resource_may_not_deploy_it(
    put: Callable[..., Any], cloud: AzureMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user("cy", ("Contributor",)))
    assert put(template(ACCOUNT))["properties"]["provisioningState"] == "Succeeded"
    wanted = r"Microsoft.Authorization/roleDefinitions/write"
    with pytest.raises(HttpResponseError, match=wanted) as error:
        put(template(role(GUIDS[0])))
    assert code_of(error.value) == "AuthorizationFailed"


def test_what_if_says_what_would_change_and_changes_nothing(
    clients: Clients, settings: AzureSettings, management: Management
) -> None:
    path = f"{settings.group_path}/providers/Microsoft.Resources/deployments/theirs"
    body = {"properties": {"template": template(ACCOUNT), "mode": "Incremental"}}

    def foreseen() -> str:
        asked = clients.arm("POST", f"{path}/whatIf", api_version=DEPLOYMENTS_API, body=body)
        told = clients.arm("GET", asked.headers["Location"], api_version=DEPLOYMENTS_API).json()
        return str(told["properties"]["changes"][0]["changeType"])

    assert foreseen() == "Create"
    there = {one["name"] for one in management.resources.of_type(ACCOUNT["type"])}
    assert "plantamodels" not in there
    clients.arm("PUT", path, api_version=DEPLOYMENTS_API, body=body)
    clients.arm("GET", path, api_version=DEPLOYMENTS_API)
    assert foreseen() == "NoChange"


def test_a_resource_is_changed_on_its_etag_alone(
    put: Callable[..., Any], clients: Clients, management: Management
) -> None:
    put(template(ACCOUNT))
    path = f"{management.group}/providers/{ACCOUNT['type']}/plantamodels"
    stale = {"If-Match": '"stale"'}
    body = {"tags": {"a": "b"}}
    assert (
        code(lambda: clients.arm("PUT", path, api_version=STORAGE_API, body=body, headers=stale))
        == "PreconditionFailed"
    )


def test_deployments_and_resources_outlive_the_mock(
    put: Callable[..., Any], cloud: AzureMock, clients: Clients, settings: AzureSettings
) -> None:
    put(template(ACCOUNT))
    cloud.stop()
    cloud.start()
    there = {one["name"] for one in cloud.stage.management.resources.of_type(ACCOUNT["type"])}
    assert "plantamodels" in there
    path = f"{settings.group_path}/providers/Microsoft.Resources/deployments/theirs"
    found = clients.arm("GET", path, api_version=DEPLOYMENTS_API).json()
    assert found["properties"]["provisioningState"] == "Succeeded"
