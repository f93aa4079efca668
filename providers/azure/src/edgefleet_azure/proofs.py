"""Proves permissions with calls that change nothing, one for each action and place.

A call is refused for want of permission before Azure looks at what it asks for. So each asks for
something that isn't there, or says nothing that could be made: whatever else Azure answers, the
permission is there. Management actions tell their own call; those on data stand in a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    EdgeFleetError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.interfaces.abilities import Proof
from edgefleet_azure.blobs import AzureBlobStore
from edgefleet_azure.errors import code_of, translate
from edgefleet_azure.permissions import (
    BUILT_IN,
    DEVICES,
    DPS,
    HUB,
    MODELS,
    OPERATOR,
    SHARED,
    STATE,
    SUBSCRIPTION,
    TRAINING,
    WORKSPACE,
    is_data,
    scopes,
)
from edgefleet_azure.provisioning import AUDIENCE, SERVICE_API
from edgefleet_azure.resource_names import ResourceNames, name_of_host
from edgefleet_azure.shared_registry import API as REGISTRY_API
from edgefleet_azure.shared_registry import SharedRegistry
from edgefleet_azure.template import DPS_API, HUB_API, IMAGES_API, ML_API, ROLES_API, STORAGE_API
from edgefleet_azure.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

NOBODY = "edgefleet-doctor-asks"
"""Name of what isn't there."""
_NO_ETAG = '"AAAAAAAAAAA="'  # of a version that never was
_NO_GUID = "00000000-0000-0000-0000-00000000ed6e"
_HUB_AUDIENCE = "https://iothubs.azure.net"
_HUB_SERVICE_API = "2021-04-12"
_APIS = {
    "Microsoft.Authorization": ROLES_API,
    "Microsoft.ContainerRegistry": IMAGES_API,
    "Microsoft.MachineLearningServices": ML_API,
    "Microsoft.Resources": "2022-09-01",
    "Microsoft.Storage": STORAGE_API,
}
_METHODS = {"read": "GET", "write": "PUT", "delete": "DELETE"}
_NO_PROOF = (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    ThrottledError,
    UnavailableError,
)
_NO_PLACE = {
    "ContainerNotFound",
    "IotHubNotFound",
    "ResourceGroupNotFound",
    "SubscriptionNotFound",
    "WorkspaceNotFound",
}


_CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
_UNTRIED = {
    (SHARED, "Microsoft.MachineLearningServices/registries/assets/stage/write"): (
        "approving or rejecting a version is the proof"
    ),
    (MODELS, f"{_CONTAINERS}/setAcl/action"): "renewing access is the proof",
    (DEVICES, f"{_CONTAINERS}/setAcl/action"): "renewing access is the proof",
    (TRAINING, f"{_CONTAINERS}/write"): "making the container would be the proof",
}


class _Asked(NamedTuple):
    """What calls are made with."""

    clients: Clients
    settings: AzureSettings

    def blob(self, kind: str, verb: str) -> object:
        """Of a blob that isn't there, in one of the fleet's containers."""
        from azure.core import MatchConditions  # noqa: PLC0415 - with its library alone

        blob = self.clients.container(kind).get_blob_client(NOBODY)
        if verb == "read":
            return blob.get_blob_properties()
        if verb == "delete":
            return blob.delete_blob()
        only = MatchConditions.IfNotModified  # of a version that never was
        return blob.upload_blob(b"", overwrite=True, etag='"0x0"', match_condition=only)

    def hub(self, host: str, method: str, path: str, body: object) -> object:
        """Of a device or deployment that isn't there, in one hub."""
        return self.clients.call(
            method,
            f"https://{host}{path}",
            audience=_HUB_AUDIENCE,
            parameters={"api-version": _HUB_SERVICE_API},
            body=body,
            headers={"If-Match": _NO_ETAG} if method in {"DELETE", "PUT"} else None,
        )

    def provisioning(self, method: str, below: str, body: object) -> object:
        """Of an enrolment group that isn't there."""
        return self.clients.call(
            method,
            f"https://{self.settings.dps}/enrollmentGroups/{NOBODY}{below}",
            audience=AUDIENCE,
            parameters={"api-version": SERVICE_API},
            body=body,
            headers={"If-Match": _NO_ETAG} if method == "PUT" else None,
        )

    def shared(self, action: str) -> object:
        """Of a model that isn't in the shared registry, or of the registry itself."""
        registry = SharedRegistry(
            self.clients, self.settings, AzureBlobStore(self.clients, self.settings)
        )
        url = f"{registry.find()}/models/{NOBODY}/versions"
        if action.endswith("/assets/write"):
            parameters = {"api-version": REGISTRY_API}
            audience = self.settings.arm_url
            return self.clients.call(
                "PUT", f"{url}/1", audience=audience, parameters=parameters, body={}
            )
        return list(registry.versions(NOBODY)) if action.endswith("/assets/read") else url

    def management(self, action: str, scope: str) -> object:
        """Of a resource of the action's type that isn't there, or holds nothing."""
        namespace, *kinds, verb = action.split("/")
        if verb == "action":
            *kinds, verb = kinds
            method = "POST"
        else:
            method = _METHODS[verb]
        nobody = _NO_GUID if namespace == "Microsoft.Authorization" else NOBODY
        there = scope.rpartition("/providers/")[2].split("/")
        if there[0].lower() == namespace.lower() and len(there) > 1:
            path, kinds = scope, kinds[len(there[1::2]) :]
        else:
            path = f"{scope}/providers/{namespace}"
        path += "".join(f"/{kind}/{nobody}" for kind in kinds)
        if method == "POST":
            path += f"/{verb}"
        version = _APIS.get(namespace) or (HUB_API if "IotHubs" in action else DPS_API)
        body: object = {} if method in {"PUT", "POST"} else None
        return self.clients.arm(method, path, api_version=version, body=body)


# What each data action is asked by: method, path, body.
_HUB_CALLS: dict[str, tuple[str, str, object]] = {
    "configurations/applyToEdgeDevice/action": (
        "POST",
        f"/devices/{NOBODY}/applyConfigurationContent",
        {"modulesContent": {}},
    ),
    "configurations/delete": ("DELETE", f"/configurations/{NOBODY}", None),
    "configurations/read": ("GET", f"/configurations/{NOBODY}", None),
    "configurations/testQueries/action": ("POST", "/configurations/testQueries", {}),
    "configurations/write": ("PUT", f"/configurations/{NOBODY}", {}),
    "devices/delete": ("DELETE", f"/devices/{NOBODY}", None),
    "devices/read": ("GET", f"/devices/{NOBODY}", None),
    "devices/write": ("PUT", f"/devices/{NOBODY}", {}),
    "directMethods/invoke/action": ("POST", f"/twins/{NOBODY}/methods", {"methodName": "doctor"}),
    "statistics/read": ("GET", "/statistics/devices", None),
    "twins/read": ("GET", f"/twins/{NOBODY}", None),
    "twins/write": ("PATCH", f"/twins/{NOBODY}", {"tags": {}}),
}
_DPS_CALLS: dict[str, tuple[str, str, object]] = {
    "attestationmechanism/details/action": ("POST", "/attestationmechanism", None),
    "enrollmentGroups/delete": ("DELETE", "", None),
    "enrollmentGroups/read": ("GET", "", None),
    "enrollmentGroups/write": ("PUT", "", {}),
}

# What isn't asked of Azure Resource Manager by the action's own path.
_WORKSPACE_CALLS: dict[str, Callable[[Workspace], object]] = {
    "experiments/runs/read": lambda workspace: workspace.run(NOBODY),
    "locations/vmSizes/read": lambda workspace: workspace.sizes,
}


def prove(clients: Clients, settings: AzureSettings, parts: tuple[str, ...]) -> Iterator[Proof]:
    """Try what parts need, an action at a time.

    Args:
        clients: to reach Azure with.
        settings: of the fleet.
        parts: names in `OPERATOR`.
    """
    asked = _Asked(clients, settings)
    dps = None if settings.dps is None else name_of_host(settings.dps)
    where = scopes(ResourceNames(settings), settings.workspace, dps, settings.ml_registry)
    for part in parts:
        for place, actions in OPERATOR[part].items():
            for action in actions:
                if not where[place]:
                    continue  # the profile has no such place
                untried = _UNTRIED.get((place, action))
                if untried is not None:
                    yield Proof(part, action, tried=False, problem=untried)
                    continue
                calls = _calls(asked, place, action, where[place])
                problems = filter(None, (_problem(call, place) for call in calls))
                yield Proof(part, action, problem=next(problems, None))


def _calls(
    asked: _Asked, place: str, action: str, where: list[str]
) -> Iterator[Callable[[], object]]:
    if action.endswith("/getAcl/action"):
        yield lambda: asked.clients.container(place).get_container_access_policy()
    elif place == SHARED:
        yield lambda: asked.shared(action)
    elif place in {WORKSPACE, SUBSCRIPTION} and any(map(action.endswith, _WORKSPACE_CALLS)):
        asking = next(call for end, call in _WORKSPACE_CALLS.items() if action.endswith(end))
        yield lambda: asking(Workspace(asked.clients, asked.settings))
    elif not is_data(action):
        for scope in where:
            yield lambda scope=scope: asked.management(action, scope)  # type: ignore[misc]
    elif place in {MODELS, STATE, DEVICES, TRAINING}:
        yield lambda: asked.blob(place, action.rpartition("/")[2])
    elif place == HUB:
        call = _found(_HUB_CALLS, action)
        for host in asked.settings.hubs:
            yield lambda host=host: asked.hub(host, *call)  # type: ignore[misc]
    elif place == DPS:
        yield lambda: asked.provisioning(*_found(_DPS_CALLS, action))


def _found(calls: Mapping[str, tuple[str, str, object]], action: str) -> tuple[str, str, object]:
    return next(call for end, call in calls.items() if action.endswith(f"/{end}"))


def _problem(call: Callable[[], object], place: str) -> str | None:
    try:
        call()
    except EdgeFleetError as error:  # the place itself isn't there
        return error.message
    except Exception as error:
        ours = translate(error)
        if ours is None and not code_of(error):
            raise
        if isinstance(ours, AccessDeniedError):
            roles = " and ".join(repr(role) for role in BUILT_IN[place])
            return f"{ours.message}; Azure's own {roles} would hold it"
        if code_of(error) in _NO_PLACE or isinstance(ours, _NO_PROOF):
            return str(error) if ours is None else ours.message
    return None
