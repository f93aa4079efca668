"""Devices that register themselves come into the fleet and group that they are meant for."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trustme

from edgefleet.errors import ConfigurationError
from edgefleet.interfaces.values import Action
from edgefleet_azure.cloud.dps import signature
from edgefleet_azure.cloud.hub_values import Identity
from edgefleet_azure.groups import GROUPS, ranked
from edgefleet_azure.provisioning import AUDIENCE, SERVICE_API, EnrollmentGroup, device_key, same
from edgefleet_azure.resource_names import name_of_host
from edgefleet_azure.template import HUBS

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.install import Installation
    from edgefleet_azure.mock import AzureMock
    from edgefleet_azure.settings import AzureSettings

DEVICE_API = "2021-06-01"


@pytest.fixture
def settings(make_settings: Callable[..., AzureSettings], cloud: AzureMock) -> AzureSettings:
    hubs = (cloud.stage.authority_of("hub-1"),)
    return make_settings(dps=cloud.stage.authority_of("dps"), provision_group="new", hubs=hubs)


@pytest.fixture
def installed(
    make_installation: Callable[[AzureSettings], Installation], settings: AzureSettings
) -> Installation:
    installation = make_installation(settings)
    installation.install()
    return installation


def group_keys(clients: Clients, settings: AzureSettings) -> dict[str, str]:
    answer = clients.call(
        "POST",
        f"https://{settings.dps}/enrollmentGroups/{settings.prefix}/attestationmechanism",
        audience=AUDIENCE,
        parameters={"api-version": SERVICE_API},
    )
    found: dict[str, str] = answer.json()["symmetricKey"]
    return found


class Device:
    """A device as its identity service speaks, with nothing of ours but a key."""

    def __init__(self, cloud: AzureMock, name: str, key: str) -> None:
        self._cloud, self._name, self._key = cloud, name, key
        scope = cloud.stage.management.provisioning.scope
        self._audience = f"{scope}/registrations/{name}"

    def ask(self, method: str, below: str, *, expires_s: float = 60) -> tuple[int, Any]:
        """Status and body of an answer."""
        ends = str(int(time.time() + expires_s))
        signed = quote(signature(self._key, self._audience, ends), safe="")
        place = quote(self._audience, safe="")
        token = f"SharedAccessSignature sr={place}&sig={signed}&se={ends}&skn=registration"
        trust = ssl.create_default_context(cafile=str(self._cloud.stage.authority.bundle))
        host = self._cloud.stage.authority_of("dps")
        line = http.client.HTTPSConnection(host, context=trust, timeout=60)
        path = f"/{self._audience}{below}?api-version={DEVICE_API}"
        body = json.dumps({"registrationId": self._name}) if method == "PUT" else None
        headers = {"Authorization": token, "Content-Type": "application/json"}
        try:
            line.request(method, path, body, headers)
            answer = line.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            line.close()

    def register(self) -> dict[str, Any]:
        status, begun = self.ask("PUT", "/register")
        assert status == 202, begun
        _, done = self.ask("GET", f"/operations/{begun['operationId']}")
        found: dict[str, Any] = done["registrationState"]
        return found


def test_a_new_device_comes_into_the_hub_with_its_fleet_and_group(
    installed: Installation, clients: Clients, settings: AzureSettings, cloud: AzureMock
) -> None:
    key = device_key(group_keys(clients, settings)["primaryKey"], "press-9")
    assigned = Device(cloud, "press-9", key).register()
    assert assigned["assignedHub"] == settings.hubs[0]
    device = cloud.stage.iot_hubs["hub-1"].state.identity("press-9")
    assert device.edge
    assert device.twin.tags == {"edgefleet": {"fleet": settings.prefix, "group": "new"}}
    targeting = cloud.stage.iot_hubs["hub-1"].state.targeting("press-9")
    assert [one.id.startswith(f"edgefleet-{settings.prefix}-base") for one in targeting] == [True]


@pytest.mark.parametrize("number", [1, 2])
def test_of_several_hubs_a_new_device_comes_into_the_one_that_its_group_is_in(
    number: int,
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    make_installation: Callable[[AzureSettings], Installation],
    cloud: AzureMock,
) -> None:
    settings = make_settings(dps=cloud.stage.authority_of("dps"), provision_group="new")
    state = cloud.stage.iot_hubs[f"hub-{number}"].state
    state.add(Identity("press-1", None, {"type": "sas"}, edge=True))
    tags = {"edgefleet": {"fleet": settings.prefix, "group": "new"}}
    state.change_twin("press-1", None, tags=tags, desired=None, replace=True)
    make_installation(settings).install()
    key = device_key(group_keys(make_clients(settings), settings)["primaryKey"], "press-9")
    assigned = Device(cloud, "press-9", key).register()
    assert assigned["assignedHub"] == cloud.stage.authority_of(f"hub-{number}")


def test_a_dry_run_passes_over_a_full_hub_for_one_that_is_yet_to_be_made(
    make_settings: Callable[..., AzureSettings],
    make_installation: Callable[[AzureSettings], Installation],
    cloud: AzureMock,
) -> None:
    settings = make_settings(dps=cloud.stage.authority_of("dps"))
    first, second = settings.hubs
    both = dict.fromkeys(settings.hubs, 0)
    group = next(name for name in map(str, range(99)) if ranked(both, f"g{name}")[0] == first)
    group = f"g{group}"
    state, management = cloud.stage.iot_hubs["hub-1"].state, cloud.stage.management
    for number in range(GROUPS):
        state.add(Identity(f"d{number}", None, {"type": "sas"}, edge=True))
        tags = {"edgefleet": {"fleet": settings.prefix, "group": f"full-{number}"}}
        state.change_twin(f"d{number}", None, tags=tags, desired=None, replace=True)
    management.resources.delete(f"{management.group}/providers/{HUBS}/{name_of_host(second)}")
    new = settings.model_copy(update={"provision_group": group})
    documents = {one.path: one.content for one in make_installation(new).documents()}
    enrolment = json.loads(documents[f"enrollment-{settings.prefix}.json"])
    assert enrolment["iotHubs"] == [second]


def test_registering_again_leaves_the_group_that_the_device_was_moved_to(
    installed: Installation, clients: Clients, settings: AzureSettings, cloud: AzureMock
) -> None:
    device = Device(
        cloud, "press-9", device_key(group_keys(clients, settings)["primaryKey"], "press-9")
    )
    device.register()
    state = cloud.stage.iot_hubs["hub-1"].state
    moved = {"edgefleet": {"fleet": settings.prefix, "group": "line-3"}}
    state.change_twin("press-9", None, tags=moved, desired=None, replace=True)
    device.register()
    assert state.identity("press-9").twin.tags == moved


@pytest.mark.parametrize("expires_s", [60, -60])
def test_a_device_without_a_good_key_is_refused(
    expires_s: float,
    installed: Installation,
    clients: Clients,
    settings: AzureSettings,
    cloud: AzureMock,
) -> None:
    right = device_key(group_keys(clients, settings)["primaryKey"], "press-9")
    key = device_key(right, "another") if expires_s > 0 else right
    status, _ = Device(cloud, "press-9", key).ask("PUT", "/register", expires_s=expires_s)
    assert status == 401
    assert ("press-9", None) not in cloud.stage.iot_hubs["hub-1"].state.identities


def test_another_group_for_new_devices_keeps_the_keys_that_devices_hold(
    installed: Installation,
    clients: Clients,
    settings: AzureSettings,
    make_installation: Callable[[AzureSettings], Installation],
) -> None:
    before = group_keys(clients, settings)
    make_installation(settings.model_copy(update={"provision_group": "line-4"})).install()
    assert group_keys(clients, settings) == before


def test_a_certificate_authority_takes_the_place_of_keys(
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    make_installation: Callable[[AzureSettings], Installation],
    cloud: AzureMock,
    tmp_path: Path,
) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    settings = make_settings(
        dps=cloud.stage.authority_of("dps"),
        provision_group="new",
        provision_ca=authority,
        hubs=(cloud.stage.authority_of("hub-1"),),
    )
    installation = make_installation(settings)
    installation.install()
    enrollment = EnrollmentGroup(make_clients(settings), settings, Path())
    there = enrollment.read()
    assert there is not None
    assert "BEGIN CERTIFICATE" not in json.dumps(there)
    assert same(there, enrollment.document(settings.hubs[0]))
    actions = {one.path: one.action for one in installation.documents()}
    assert actions[f"enrollment-{settings.prefix}.json"] is Action.UNCHANGED
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    newer = settings.model_copy(update={"provision_ca": other})
    assert not same(there, EnrollmentGroup(make_clients(newer), newer, Path()).document("h"))


def test_the_dry_run_writes_what_a_new_device_starts_with(
    installed: Installation, cloud: AzureMock
) -> None:
    documents = {one.path: one.content.decode() for one in installed.documents()}
    config = documents["iotedge-config.toml"]
    assert f'id_scope = "{cloud.stage.management.provisioning.scope}"' in config
    assert 'method = "symmetric_key"' in config


def test_a_service_that_is_linked_to_another_hub_is_refused(
    settings: AzureSettings,
    cloud: AzureMock,
    make_installation: Callable[[AzureSettings], Installation],
) -> None:
    from edgefleet_azure.resource_names import name_of_host
    from edgefleet_azure.template import PROVISIONING

    name = name_of_host(str(settings.dps))
    cloud.stage.management.adopt(PROVISIONING, name, properties={"iotHubs": []})
    with pytest.raises(ConfigurationError, match="has no link to the hub"):
        make_installation(settings).install()


def test_a_teardown_takes_the_enrolment_group_and_leaves_devices(
    installed: Installation, clients: Clients, settings: AzureSettings, cloud: AzureMock
) -> None:
    key = device_key(group_keys(clients, settings)["primaryKey"], "press-9")
    Device(cloud, "press-9", key).register()
    installed.uninstall(data=False)
    installed.uninstall(data=False)
    status, _ = Device(cloud, "press-10", key).ask("PUT", "/register")
    assert status == 401
    assert ("press-9", None) in cloud.stage.iot_hubs["hub-1"].state.identities
