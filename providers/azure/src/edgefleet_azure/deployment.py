"""A fleet's template as Azure Resource Manager has it: compared, deployed, and waited for."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConfigurationError, WaitTimeoutError
from edgefleet.interfaces.answers import read_answer
from edgefleet.interfaces.values import Action
from edgefleet_azure.description import arm, bicep
from edgefleet_azure.errors import status_of
from edgefleet_azure.resource_names import TAG, ResourceNames, name_of_host
from edgefleet_azure.template import (
    DPS_API,
    HUB_API,
    HUBS,
    IMAGES,
    IMAGES_API,
    MAKE_DPS,
    MAKE_IMAGES,
    MAKE_STORAGE,
    PROVISIONING,
    STORAGE,
    STORAGE_API,
    description,
    make_hub,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

DEPLOYMENTS_API = "2022-09-01"
TIMEOUT_S = 1800.0  # a hub takes minutes
FIRST_POLL_S, LAST_POLL_S = 0.05, 10.0
_DONE = {"Succeeded", "Failed", "Canceled"}
_SAME = {"NoChange", "Ignore", "NoEffect"}


class FleetDeployment:
    """The template of one fleet, in its resource group.

    Args:
        clients: to reach Azure Resource Manager with.
        settings: of the fleet.
    """

    def __init__(self, clients: Clients, settings: AzureSettings) -> None:
        self._clients, self._settings = clients, settings
        self._names = ResourceNames(settings)
        self._path = (
            f"{self._names.group}/providers/Microsoft.Resources/deployments/"
            f"{self._names.deployment}"
        )
        described = description(settings)
        self.template = arm(described)
        self.bicep = bicep(described)

    def services(self) -> Iterator[tuple[str, str, str]]:
        """Parameter, resource id and version of the API of each service that install may make."""
        names = self._names
        yield MAKE_STORAGE, names.of(STORAGE, names.storage), STORAGE_API
        for host, name in names.hubs.items():
            yield make_hub(host), names.of(HUBS, name), HUB_API
        if names.registry is not None:
            yield MAKE_IMAGES, names.of(IMAGES, names.registry), IMAGES_API
        if self._settings.dps is not None:
            service = names.of(PROVISIONING, name_of_host(self._settings.dps))
            yield MAKE_DPS, service, DPS_API

    def parameters(self) -> dict[str, bool]:
        """What is to be made: services that aren't there, and those that install made before."""
        found = {}
        for parameter, path, version in self.services():
            there = self.resource(path, version)
            found[parameter] = there is None or self.is_ours(there)
        return found

    def is_ours(self, resource: Mapping[str, Any]) -> bool:
        """Whether install made a service for this fleet."""
        return bool((resource.get("tags") or {}).get(TAG) == self._names.prefix)

    def resource(self, path: str, version: str) -> dict[str, Any] | None:
        """A resource; None where none is."""
        try:
            found = self._clients.arm("GET", path, api_version=version)
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise
        return read_answer(found, dict[str, Any])

    def action(self, parameters: Mapping[str, bool]) -> Action:
        """What `apply` would do, as Azure Resource Manager foresees it.

        Raises:
            ConfigurationError: it would refuse the template.
            WaitTimeoutError: it didn't say in time.
        """
        sent = self._sent(parameters)
        path = f"{self._path}/whatIf"
        answer = self._clients.arm("POST", path, api_version=DEPLOYMENTS_API, body=sent)
        deadline, pause = time.monotonic() + TIMEOUT_S, FIRST_POLL_S
        while answer.status_code == 202:
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"no answer to what-if after {TIMEOUT_S:.0f} s")
            time.sleep(pause)
            pause = min(pause * 2, LAST_POLL_S)
            where = answer.headers["Location"]
            answer = self._clients.arm("GET", where, api_version=DEPLOYMENTS_API)
        told = read_answer(answer, dict[str, Any])
        if told.get("status") == "Failed":
            raise self._refused(told.get("error") or {})
        kinds = {one["changeType"] for one in told["properties"]["changes"]} - _SAME
        if not kinds:
            return Action.UNCHANGED
        before = self.resource(self._path, DEPLOYMENTS_API)
        return Action.CREATE if before is None else Action.UPDATE

    def apply(self, parameters: Mapping[str, bool]) -> None:
        """Have everything as the template says; nothing is sent when it is.

        Raises:
            ConfigurationError: Azure couldn't make it; the message says why.
            WaitTimeoutError: it still works on it.
        """
        if self.action(parameters) is Action.UNCHANGED:
            return
        sent = self._sent(parameters)
        self._clients.arm("PUT", self._path, api_version=DEPLOYMENTS_API, body=sent)
        deadline, pause = time.monotonic() + TIMEOUT_S, FIRST_POLL_S
        while True:
            found = self.resource(self._path, DEPLOYMENTS_API) or {"properties": {}}
            state = found["properties"].get("provisioningState")
            if state == "Succeeded":
                return
            if state in _DONE:
                raise self._refused(found["properties"].get("error") or {})
            if time.monotonic() > deadline:
                raise WaitTimeoutError(
                    f"deployment {self._names.deployment} is still {state} after {TIMEOUT_S:.0f} s"
                )
            time.sleep(pause)
            pause = min(pause * 2, LAST_POLL_S)

    def remove(self, path: str, version: str) -> None:
        """Delete a resource, and wait until it is gone; no error when it isn't there.

        Raises:
            WaitTimeoutError: it is still there.
        """
        try:
            self._clients.arm("DELETE", path, api_version=version)
        except Exception as error:
            if status_of(error) == 404:
                return
            raise
        deadline, pause = time.monotonic() + TIMEOUT_S, FIRST_POLL_S
        while self.resource(path, version) is not None:
            if time.monotonic() > deadline:
                raise WaitTimeoutError(f"{path} is still there after {TIMEOUT_S:.0f} s")
            time.sleep(pause)
            pause = min(pause * 2, LAST_POLL_S)

    def forget(self) -> None:
        """Delete the deployment's record; what was deployed stays."""
        self.remove(self._path, DEPLOYMENTS_API)

    def _sent(self, parameters: Mapping[str, bool]) -> dict[str, Any]:
        values = {name: {"value": value} for name, value in parameters.items()}
        properties = {"template": self.template, "parameters": values, "mode": "Incremental"}
        return {"properties": properties}

    def _refused(self, error: Mapping[str, Any]) -> ConfigurationError:
        inner = "; ".join(_reasons(error)) or "no reason was given"
        return ConfigurationError(
            f"deployment {self._names.deployment} failed: {inner}",
            cure="see what each resource says: az deployment operation group list "
            f"-g {self._settings.resource_group} -n {self._names.deployment}",
        )


def parameters_document(parameters: Mapping[str, bool]) -> bytes:
    """Parameters as a file for ``az deployment group create --parameters``."""
    schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#"
    values = {name: {"value": value} for name, value in sorted(parameters.items())}
    document = {"$schema": schema, "contentVersion": "1.0.0.0", "parameters": values}
    return json.dumps(document, indent=2).encode() + b"\n"


def _reasons(error: Mapping[str, Any]) -> Iterator[str]:
    """What went wrong, innermost: the outer errors only say that something did."""
    details = error.get("details") or ()
    if not details and error:
        yield f"{error.get('code')}: {error.get('message')}"
    for one in details:
        yield from _reasons(one)
