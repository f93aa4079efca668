"""What a network that wants one to sign in answers in Azure's place, with 200."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import requests
from azure.core.exceptions import DecodeError, DeserializationError

from edgefleet.errors import UnavailableError
from edgefleet.interfaces.answers import BETWEEN
from edgefleet.interfaces.blobs import BlobStore
from edgefleet_azure.access import AccessGrants
from edgefleet_azure.clients import Clients
from edgefleet_azure.deployment import FleetDeployment
from edgefleet_azure.errors import translate
from edgefleet_azure.events import sources
from edgefleet_azure.hub_routes import HubRoute
from edgefleet_azure.hubs import Hub
from edgefleet_azure.provisioning import EnrollmentGroup
from edgefleet_azure.resource_names import ResourceNames
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.shared_registry import SharedRegistry
from edgefleet_azure.workspace import Workspace

HOST = "plant.azure-devices.net"
SETTINGS = AzureSettings(
    subscription="00000000-0000-0000-0000-000000000000",
    resource_group="plant",
    storage_url="https://plant.blob.core.windows.net",
    hubs=(HOST,),
    workspace="plant",
    ml_registry="shared",
    dps="plant.azure-devices-provisioning.net",
)
NAMES = ResourceNames(SETTINGS)


class Portal:
    """Stands in for `Clients`, and gives one answer to everything."""

    def __init__(self, body: bytes) -> None:
        self._answer = requests.Response()
        self._answer.status_code, self._answer.url = 200, "https://portal.example/"
        self._answer._content = body

    def arm(self, *_: object, **__: object) -> object:
        return self._answer

    call = arm

    def hub(self, _host: str) -> object:
        def ask(*_: object, **__: object) -> object:
            return SimpleNamespace(response=self._answer)

        calls = SimpleNamespace(get_twins=ask, get_twin=ask, get_configurations=ask, get=ask)
        protocol = SimpleNamespace(query=calls, devices=calls, modules=calls, configuration=calls)
        return SimpleNamespace(protocol=protocol)


def shared(clients: Clients) -> SharedRegistry:
    return SharedRegistry(clients, SETTINGS, cast("BlobStore", None))


ASKED: dict[str, Callable[[Clients], object]] = {
    "a query": lambda clients: list(Hub(clients, HOST).query("SELECT")),
    "a twin": lambda clients: Hub(clients, HOST).twin("cam-1"),
    "configurations": lambda clients: Hub(clients, HOST).configurations(),
    "a configuration": lambda clients: Hub(clients, HOST).configuration("c"),
    "a resource": lambda clients: FleetDeployment(clients, SETTINGS).resource("/r", "1"),
    "routes": lambda clients: list(HubRoute(clients, NAMES, HOST).documents()),
    "enrolment": lambda clients: EnrollmentGroup(clients, SETTINGS, Path()).read(),
    "a document": lambda clients: Workspace(clients, SETTINGS).read("jobs/a"),
    "documents": lambda clients: list(Workspace(clients, SETTINGS).all("jobs")),
    "hubs": lambda clients: list(sources(clients, SETTINGS)),
    "a shared registry": lambda clients: shared(clients).find(),
    "a key": lambda clients: AccessGrants(clients, SETTINGS)._key(),
}
WHOLE = ("hubs", "a key", "a shared registry")
"""Of which more is read than that it is an object."""


@pytest.mark.parametrize("body", [b"<p>sign in</p>", b'"yes"'], ids=["page", "word"])
@pytest.mark.parametrize("what", ASKED)
def test_what_answers_in_azures_place_is_told(what: str, body: bytes) -> None:
    with pytest.raises(UnavailableError, match=r"portal\.example answered") as caught:
        ASKED[what](cast("Clients", Portal(body)))
    assert "what stands between" in str(caught.value)


@pytest.mark.parametrize("what", WHOLE)
def test_an_object_of_somebody_elses_is_told(what: str) -> None:
    with pytest.raises(UnavailableError, match="answered"):
        ASKED[what](cast("Clients", Portal(b'{"keys": []}')))


@pytest.mark.parametrize(
    "error",
    [DeserializationError("Cannot deserialize content-type: text/html"), DecodeError("<p>")],
)
def test_what_azures_own_libraries_can_not_read_is_told(error: Exception) -> None:
    found = translate(error)
    assert isinstance(found, UnavailableError)
    assert found.cure == BETWEEN
