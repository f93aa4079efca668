"""Installing a fleet's side of Azure, and taking it away again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import HttpResponseError

from edgefleet.errors import AccessDeniedError, ConfigurationError, NotFoundError
from edgefleet.interfaces.values import Action
from edgefleet_azure.deployment import DEPLOYMENTS_API, FleetDeployment
from edgefleet_azure.description import arm
from edgefleet_azure.mock import ML_REGISTRY
from edgefleet_azure.resource_names import KINDS, TAG, ResourceNames, name_of_host
from edgefleet_azure.template import (
    ASSIGNMENT,
    CONSUMER_GROUP,
    CONTAINER,
    HUB_API,
    HUBS,
    IMAGES,
    ROLE,
    STORAGE,
    STORAGE_API,
    description,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.cloud.management import Management
    from edgefleet_azure.install import Installation
    from edgefleet_azure.mock import AzureMock
    from edgefleet_azure.settings import AzureSettings

    MakeInstallation = Callable[[AzureSettings], Installation]
    MakeSettings = Callable[..., AzureSettings]


def resource(management: Management, type_: str, *names: str) -> dict[str, Any] | None:
    namespace, *kinds = type_.split("/")
    path = "".join(f"/{kind}/{name}" for kind, name in zip(kinds, names, strict=True))
    return management.resources.get(f"{management.group}/providers/{namespace}{path}")


def containers(management: Management) -> set[str]:
    found = {one["name"] for one in management.resources.of_type(CONTAINER)}
    return {name for name in found if not name.startswith("edgefleet-")}  # the mock's own fleet's


def hub_state(cloud: AzureMock, number: int = 1) -> Any:
    return cloud.stage.iot_hubs[f"hub-{number}"].state


def configurations(cloud: AzureMock, number: int = 1) -> list[str]:
    return sorted(hub_state(cloud, number).configurations)


def without_hub(management: Management, host: str) -> None:
    """Have a host behind which no hub was made yet."""
    management.resources.delete(f"{management.group}/providers/{HUBS}/{name_of_host(host)}")


def test_containers_consumers_and_the_base_are_made_in_services_that_are_there(
    make_installation: MakeInstallation,
    settings: AzureSettings,
    management: Management,
    cloud: AzureMock,
) -> None:
    make_installation(settings).install()
    prefix = settings.prefix
    assert containers(management) == {f"{prefix}-{kind}" for kind in KINDS}
    for number in (1, 2):
        (base,) = configurations(cloud, number)
        assert base.startswith(f"edgefleet-{prefix}-base-")
    account = ResourceNames(settings).storage
    adopted = resource(management, STORAGE, account)
    assert adopted is not None
    assert TAG not in adopted.get("tags", {})


def test_installing_again_sends_nothing_that_changes(
    make_installation: MakeInstallation, settings: AzureSettings, sent: Callable[[], list[str]]
) -> None:
    installation = make_installation(settings)
    installation.install()
    before = sent()
    installation.install()
    assert before
    assert sent() == before


def test_services_that_are_missing_are_made_and_tagged(
    make_installation: MakeInstallation,
    make_settings: MakeSettings,
    management: Management,
    cloud: AzureMock,
) -> None:
    host = cloud.stage.authority_of("hub-2")
    without_hub(management, host)
    settings = make_settings(hubs=(host,))
    make_installation(settings).install()
    for type_, name in ((HUBS, name_of_host(host)), (IMAGES, "plantimages")):
        made = resource(management, type_, name)
        assert made is not None
        assert made["tags"] == {TAG: settings.prefix}
    hub = resource(management, HUBS, name_of_host(host)) or {}
    (route,) = hub["properties"]["routing"]["routes"]
    assert route["endpointNames"] == ["events"]


def test_a_teardown_keeps_models_and_services(
    make_installation: MakeInstallation,
    settings: AzureSettings,
    management: Management,
    cloud: AzureMock,
) -> None:
    installation = make_installation(settings)
    installation.install()
    installation.uninstall(data=False)
    installation.uninstall(data=False)
    assert len(containers(management)) == len(KINDS)
    assert resource(management, IMAGES, "plantimages") is not None
    assert configurations(cloud) == []


def test_a_teardown_takes_the_consumer_group_when_no_other_fleet_reads_as_it(
    make_installation: MakeInstallation,
    make_settings: MakeSettings,
    management: Management,
) -> None:
    fleets = [make_installation(make_settings()) for _ in range(2)]
    host = make_settings().hubs[0]
    for fleet in fleets:
        fleet.install()
    fleets[0].uninstall(data=False)
    assert management.consumers(host) == {"$Default", CONSUMER_GROUP}
    fleets[1].uninstall(data=False)
    assert management.consumers(host) == {"$Default"}


def test_a_teardown_with_data_takes_what_install_made(
    make_installation: MakeInstallation,
    make_settings: MakeSettings,
    management: Management,
    cloud: AzureMock,
) -> None:
    host = cloud.stage.authority_of("hub-2")
    without_hub(management, host)
    settings = make_settings(hubs=(host,))
    installation = make_installation(settings)
    installation.install()
    installation.uninstall(data=True)
    assert containers(management) == set()
    assert resource(management, IMAGES, "plantimages") is None
    assert resource(management, HUBS, name_of_host(host)) is None
    assert resource(management, STORAGE, ResourceNames(settings).storage) is not None


def test_a_teardown_with_data_leaves_services_that_others_use(
    make_installation: MakeInstallation,
    make_settings: MakeSettings,
    management: Management,
    clients: Clients,
    cloud: AzureMock,
) -> None:
    host = cloud.stage.authority_of("hub-2")
    without_hub(management, host)
    settings = make_settings(hubs=(host,))
    account = ResourceNames(settings).storage
    management.resources.delete(f"{management.group}/providers/{STORAGE}/{account}")
    installation = make_installation(settings)
    installation.install()
    theirs = f"{management.group}/providers/{STORAGE}/{account}/blobServices/default/containers/x-y"
    clients.arm("PUT", theirs, api_version=STORAGE_API, body={"properties": {}})
    device = {"deviceId": "theirs", "authentication": {"type": "sas"}}
    clients.call(
        "PUT",
        f"https://{host}/devices/theirs",
        audience="https://iothubs.azure.net",
        parameters={"api-version": "2021-04-12"},
        body=device,
    )
    installation.uninstall(data=True)
    assert containers(management) == {"x-y"}
    assert resource(management, STORAGE, account) is not None
    assert resource(management, HUBS, name_of_host(host)) is not None
    assert resource(management, IMAGES, "plantimages") is None


def test_another_image_replaces_the_base_without_a_gap(
    make_installation: MakeInstallation, settings: AzureSettings, cloud: AzureMock
) -> None:
    make_installation(settings).install()
    (before,) = configurations(cloud)
    newer = settings.model_copy(update={"runtime_image": f"{settings.runtime_image}-2"})
    make_installation(newer).install()
    (after,) = configurations(cloud)
    assert after != before
    told = [line.split()[1] for line in cloud.seen() if "Configuration_" in line]
    last = [one for one in told if "CreateOrUpdate" in one or "Delete" in one][-2:]
    assert [one.rpartition("_")[2] for one in last] == ["CreateOrUpdate", "Delete"]


def test_a_hub_whose_routes_take_messages_elsewhere_gets_one_of_ours_and_keeps_theirs(
    make_installation: MakeInstallation,
    settings: AzureSettings,
    management: Management,
    clients: Clients,
) -> None:
    theirs = {
        "name": "archive",
        "source": "DeviceMessages",
        "condition": "true",
        "endpointNames": ["archive"],
        "isEnabled": True,
    }
    name = name_of_host(settings.hubs[0])
    path = f"{management.group}/providers/{HUBS}/{name}"
    body = {"properties": {"routing": {"routes": [theirs]}}}
    clients.arm("PUT", path, api_version=HUB_API, body=body)
    installation = make_installation(settings)
    documents = {one.path for one in installation.documents()}
    installation.install()
    hub = resource(management, HUBS, name) or {}
    assert f"route-{name}.json" in documents
    named = [one["name"] for one in hub["properties"]["routing"]["routes"]]
    assert named == ["archive", f"edgefleet-{settings.prefix}"]
    installation.uninstall(data=False)
    hub = resource(management, HUBS, name) or {}
    assert hub["properties"]["routing"]["routes"] == [theirs]


def test_a_dry_run_tells_what_is_there_already_and_sends_nothing(
    make_installation: MakeInstallation, settings: AzureSettings, sent: Callable[[], list[str]]
) -> None:
    installation = make_installation(settings)
    before = {one.path: one.action for one in installation.documents()}
    assert sent() == []
    installation.install()
    after = {one.path: one.action for one in installation.documents()}
    assert set(before.values()) == {Action.CREATE}
    assert after == dict.fromkeys(before, Action.UNCHANGED)
    name = f"edgefleet-{settings.prefix}"
    assert {f"{name}.json", f"{name}.bicep", f"{name}-parameters.json"} <= before.keys()


def test_documents_are_what_is_sent(
    make_installation: MakeInstallation, settings: AzureSettings, clients: Clients
) -> None:
    installation = make_installation(settings)
    documents = {one.path: one.content for one in installation.documents()}
    name = f"edgefleet-{settings.prefix}"
    template = json.loads(documents[f"{name}.json"])
    parameters = json.loads(documents[f"{name}-parameters.json"])["parameters"]
    path = f"{settings.group_path}/providers/Microsoft.Resources/deployments/theirs"
    properties = {"template": template, "parameters": parameters, "mode": "Incremental"}
    clients.arm("PUT", path, api_version=DEPLOYMENTS_API, body={"properties": properties})
    done = clients.arm("GET", path, api_version=DEPLOYMENTS_API).json()
    assert done["properties"]["provisioningState"] == "Succeeded"
    assert (
        FleetDeployment(clients, settings).action(
            {key: one["value"] for key, one in parameters.items()}
        )
        is Action.UNCHANGED
    )


def test_operators_may_what_their_roles_say_until_they_are_none(  # noqa: PLR0917 - fixtures
    make_installation: MakeInstallation,
    make_settings: MakeSettings,
    make_clients: Callable[[AzureSettings], Clients],
    management: Management,
    cloud: AzureMock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada = cloud.add_user("ada", ())
    settings = make_settings(operators=(ada,))
    make_installation(settings).install()
    hub = settings.hubs[0]

    def devices(clients: Clients) -> int:
        return clients.call(
            "GET",
            f"https://{hub}/devices/nobody",
            audience="https://iothubs.azure.net",
            parameters={"api-version": "2021-04-12"},
        ).status_code

    assert list(management.resources.of_type(ROLE))
    monkeypatch.setenv("AZURE_CLIENT_ID", ada)
    hers = make_clients(settings)
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as there:
        devices(hers)
    assert there.value.status_code == 404, "she may ask, and there is no such device"
    monkeypatch.undo()
    for key, value in cloud.authority.alone(cloud.environment).items():
        monkeypatch.setenv(key, value)
    make_installation(settings.model_copy(update={"operators": ()})).install()
    assert list(management.resources.of_type(ASSIGNMENT)) == []
    with pytest.raises(HttpResponseError) as refused:
        devices(hers)
    assert refused.value.status_code == 403


def test_a_principal_that_nobody_is_fails_the_deployment_and_says_so(
    make_installation: MakeInstallation, make_settings: MakeSettings
) -> None:
    nobody = "99999999-0000-0000-0000-000000000000"
    with pytest.raises(ConfigurationError, match="PrincipalNotFound"):
        make_installation(make_settings(operators=(nobody,))).install()


def test_a_profile_without_image_or_hubs_is_told_what_is_missing(
    make_installation: MakeInstallation, make_settings: MakeSettings
) -> None:
    for setting in ("runtime_image", "hubs"):
        settings = make_settings(**{setting: () if setting == "hubs" else None})
        with pytest.raises(ConfigurationError, match=setting):
            make_installation(settings).install()


@pytest.mark.parametrize(
    "has, said",
    [
        ({"isHnsEnabled": False}, "no hierarchical namespace"),
        ({"isHnsEnabled": True, "allowSharedKeyAccess": False}, "takes no shared keys"),
    ],
)
def test_an_account_that_devices_could_not_write_to_is_refused(  # noqa: PLR0917 - fixtures
    has: dict[str, bool],
    said: str,
    make_installation: MakeInstallation,
    settings: AzureSettings,
    management: Management,
    cloud: AzureMock,
) -> None:
    management.resources.forget(f"{management.group}/providers/{STORAGE}/{cloud.account}")
    management.adopt(STORAGE, cloud.account, properties=has)
    installation = make_installation(settings)
    with pytest.raises(ConfigurationError, match=said):
        installation.install()
    with pytest.raises(ConfigurationError, match=said):
        list(installation.documents())


def test_an_account_that_install_makes_can_have_devices(
    make_settings: MakeSettings,
) -> None:
    template = arm(description(make_settings()))
    (account,) = [one for one in template["resources"] if one["type"] == STORAGE]
    assert account["properties"]["isHnsEnabled"] is True
    assert account["properties"]["allowSharedKeyAccess"] is True


def test_devices_that_are_there_stay_as_they_are(
    make_installation: MakeInstallation, settings: AzureSettings, cloud: AzureMock
) -> None:
    from edgefleet_azure.cloud.hub_values import Identity

    state = hub_state(cloud)
    state.add(Identity("press-7", None, {"type": "sas"}, edge=True))
    with state.changing():
        before = {at: state.seen(one) for at, one in state.identities.items()}
    installation = make_installation(settings)
    installation.install()
    installation.uninstall(data=False)
    with state.changing():
        after = {at: state.seen(one) for at, one in state.identities.items()}
    assert after == before


def test_an_installer_without_the_right_is_told_which_one(
    make_installation: MakeInstallation,
    settings: AzureSettings,
    cloud: AzureMock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user("bob", ("Reader",)))
    from edgefleet_azure.errors import translate

    with pytest.raises(HttpResponseError, match=r"deployments/whatIf/action") as refused:
        make_installation(settings).install()
    assert isinstance(translate(refused.value), AccessDeniedError)


def test_a_shared_registry_that_is_not_there_is_refused_before_anything_is_made(
    make_installation: MakeInstallation,
    make_settings: MakeSettings,
    sent: Callable[[], list[str]],
) -> None:
    before = sent()
    with pytest.raises(NotFoundError, match="nobodys"):
        make_installation(make_settings(ml_registry="nobodys")).install()
    assert [one for one in sent()[len(before) :] if one != "registry.Discover"] == []


def test_a_shared_registry_is_adopted_wherever_it_lies(
    make_installation: MakeInstallation, make_settings: MakeSettings, management: Management
) -> None:
    settings = make_settings(ml_registry=ML_REGISTRY)
    make_installation(settings).install()
    assert containers(management) == {f"{settings.prefix}-{kind}" for kind in KINDS}


def test_who_installs_need_not_be_let_into_the_shared_registry(
    make_installation: MakeInstallation,
    make_settings: MakeSettings,
    management: Management,
    cloud: AzureMock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    roles = ["Contributor", "IoT Hub Data Contributor"]
    someone = cloud.add_user("installer", roles, scope=management.group)
    monkeypatch.setenv("AZURE_CLIENT_ID", someone)
    settings = make_settings(ml_registry=ML_REGISTRY)
    make_installation(settings).install()
    assert containers(management) == {f"{settings.prefix}-{kind}" for kind in KINDS}
