"""Devices, modules and their twins over IoT Hub's REST API.

Rules kept here, each in ``mock_rules.md``: an identity is made without an etag and changed with
one; names have 128 characters at most; a device has 50 modules at most; a twin takes tags and
desired properties from the service, and a stale etag changes nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgefleet_azure.cloud.hub_configurations import match
from edgefleet_azure.cloud.hub_values import HubError, Identity, etag_of, key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_azure.cloud.hub_state import HubState

MAX_MODULES = 50
MAX_LISTED = 1000
_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")
_NEVER = "0001-01-01T00:00:00Z"


class Identities:
    """Operations on the registry of a hub, and on twins."""

    def __init__(self, state: HubState) -> None:
        self._state = state

    def get(self, device: str, module: str | None = None) -> dict[str, Any]:
        """A device or module."""
        return _shown(self._state.identity(device, module))

    def listed(self, top: int | None) -> list[dict[str, Any]]:
        """Devices by name, at most so many."""
        with self._state.changing():
            found = [one for one in self._state.identities.values() if one.module is None]
        most = top if top is not None and 1 <= top <= MAX_LISTED else MAX_LISTED
        return [_shown(one) for one in sorted(found, key=lambda one: one.device)[:most]]

    def modules(self, device: str) -> list[dict[str, Any]]:
        """Modules of a device, by name."""
        self._state.identity(device)
        return [_shown(one) for one in self._state.modules(device)]

    def put(
        self, device: str, module: str | None, document: Mapping[str, Any], if_match: str | None
    ) -> dict[str, Any]:
        """Make an identity, or change it where an etag is given."""
        name = device if module is None else module
        told = document.get("deviceId" if module is None else "moduleId", name)
        if not _ID.fullmatch(name) or told != name:
            raise HubError(400, "ArgumentInvalid", f"{name[:128]!r} is no id")
        with self._state.changing():
            there = self._state.identities.get((device, module))
            if if_match is not None:
                return self._changed(device, module, document, if_match)
            if there is not None:
                raise HubError(
                    409,
                    "DeviceAlreadyExists" if module is None else "ModuleAlreadyExistsOnDevice",
                    f"{name} is registered already",
                )
            if module is not None:
                self._state.identity(device)
                if len(self._state.modules(device)) >= MAX_MODULES:
                    raise HubError(413, "TooManyModulesOnDevice", f"{device} has {MAX_MODULES}")
            made = Identity(device, module, _authentication(document))
            _take(made, document)
            self._state.add(made)
            return _shown(made)

    def _changed(
        self, device: str, module: str | None, document: Mapping[str, Any], if_match: str
    ) -> dict[str, Any]:
        there = self._state.identity(device, module)
        match(if_match, there.etag)
        there.authentication = _authentication(document)
        _take(there, document)
        there.number += 1
        self._state.add(there)
        return _shown(there)

    def delete(self, device: str, module: str | None, if_match: str | None) -> None:
        """Take an identity away, with its twin."""
        with self._state.changing():
            there = self._state.identity(device, module)
            if if_match is not None:
                match(if_match, there.etag)
            self._state.remove(device, module)

    def bulk(self, documents: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        """Change many at once; with the answer's status."""
        errors = []
        for document in documents:
            device, module = str(document.get("id")), document.get("moduleId")
            try:
                self._one_of_many(device, module, document)
            except HubError as error:
                errors.append(
                    {
                        "deviceId": device,
                        "errorCode": error.code,
                        "errorStatus": error.message,
                    }
                )
        answer = {"isSuccessful": not errors, "errors": errors, "warnings": []}
        return (400 if errors else 200), answer

    def _one_of_many(self, device: str, module: str | None, document: dict[str, Any]) -> None:
        mode, etag = document.get("importMode", "create"), document.get("eTag")
        told = {key: value for key, value in document.items() if key not in {"id", "moduleId"}}
        if mode == "create":
            self.put(device, module, told, None)
        elif mode in {"update", "updateIfMatchETag"}:
            self.put(device, module, told, etag if mode == "updateIfMatchETag" and etag else "*")
        elif mode in {"delete", "deleteIfMatchETag"}:
            self.delete(device, module, etag if mode == "deleteIfMatchETag" else None)
        else:
            body = {"tags": document.get("tags"), "properties": document.get("properties")}
            fits = document.get("twinETag") if mode == "updateTwinIfMatchETag" else None
            self.change_twin(device, module, body, fits, replace=False)

    def twin(self, device: str, module: str | None) -> dict[str, Any]:
        """A twin."""
        return shown_twin(self._state.seen(self._state.identity(device, module)))

    def change_twin(
        self,
        device: str,
        module: str | None,
        body: Mapping[str, Any],
        if_match: str | None,
        *,
        replace: bool,
    ) -> dict[str, Any]:
        """Patch or replace tags and desired properties of a twin."""
        tags = body.get("tags")
        desired = (body.get("properties") or {}).get("desired")
        if not all(isinstance(part, dict) or part is None for part in (tags, desired)):
            raise HubError(400, "ArgumentInvalid", "tags and desired properties are objects")
        if desired is not None:
            desired = {
                name: value
                for name, value in desired.items()
                if name not in {"$metadata", "$version"}
            }
        if replace:
            tags, desired = tags or {}, desired or {}
        with self._state.changing():
            identity = self._state.identity(device, module)
            if if_match is not None:
                match(if_match, etag_of(identity.twin.version))
            self._state.change_twin(device, module, tags=tags, desired=desired, replace=replace)
            return shown_twin(self._state.seen(identity))

    def statistics(self) -> dict[str, Any]:
        """How many devices are registered."""
        found = [one for (_, module), one in self._state.identities.items() if module is None]
        enabled = sum(one.count for one in found if one.enabled)
        whole = sum(one.count for one in found)
        return {
            "totalDeviceCount": whole,
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": whole - enabled,
        }

    def connected(self) -> dict[str, Any]:
        """How many devices are connected."""
        found = [one for (_, module), one in self._state.identities.items() if module is None]
        return {"connectedDeviceCount": sum(one.count for one in found if one.connected)}


def shown_twin(seen: Mapping[str, Any]) -> dict[str, Any]:
    """A twin as the service answers it: without the deployments, which only queries see."""
    return {key: value for key, value in seen.items() if key != "configurations"}


def _authentication(document: Mapping[str, Any]) -> dict[str, Any]:
    given = document.get("authentication") or {}
    found: dict[str, Any] = {"type": "sas", **{k: v for k, v in given.items() if v is not None}}
    if found["type"] == "sas":
        keys = found.get("symmetricKey") or {}
        found["symmetricKey"] = {
            "primaryKey": keys.get("primaryKey") or key(),
            "secondaryKey": keys.get("secondaryKey") or key(),
        }
    return found


def _take(identity: Identity, document: Mapping[str, Any]) -> None:
    identity.edge = bool((document.get("capabilities") or {}).get("iotEdge", identity.edge))
    identity.enabled = document.get("status", "enabled") != "disabled"
    identity.reason = document.get("statusReason") or ""
    identity.managed_by = document.get("managedBy") or identity.managed_by
    if identity.module is None:
        scope = f"ms-azure-iot-edge://{identity.device}-{identity.generation}"
        identity.scope = scope if identity.edge else document.get("deviceScope") or ""
        identity.parents = tuple(document.get("parentScopes") or ())


def _shown(identity: Identity) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "deviceId": identity.device,
        "generationId": identity.generation,
        "etag": identity.etag,
        "connectionState": "Connected" if identity.connected else "Disconnected",
        "connectionStateUpdatedTime": _NEVER,
        "lastActivityTime": identity.active,
        "cloudToDeviceMessageCount": 0,
        "authentication": identity.authentication,
    }
    if identity.module is not None:
        return {**shown, "moduleId": identity.module, "managedBy": identity.managed_by}
    return {
        **shown,
        "status": "enabled" if identity.enabled else "disabled",
        "statusReason": identity.reason,
        "statusUpdatedTime": _NEVER,
        "capabilities": {"iotEdge": identity.edge},
        "deviceScope": identity.scope,
        "parentScopes": list(identity.parents),
    }
