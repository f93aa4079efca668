"""Devices that register themselves: the enrolment group that brings them into a group.

What a device says of itself counts for nothing: which fleet and group it comes into is in the twin
that the enrolment group starts it with.

https://learn.microsoft.com/rest/api/iot-dps/service/enrollment-group
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces.answers import read_answer
from edgefleet_azure.errors import status_of
from edgefleet_azure.resource_names import ResourceNames

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

SERVICE_API = "2021-10-01"
AUDIENCE = "https://azure-devices-provisioning.net"
QUOTE = '"'  # around ETags
GLOBAL_ENDPOINT = "https://global.azure-devices-provisioning.net"


class EnrollmentGroup:
    """The enrolment group of one fleet.

    Args:
        clients: to reach the provisioning service with.
        settings: of the fleet; names the service and the group of new devices.
        base: folder that relative paths in settings start from.
    """

    def __init__(self, clients: Clients, settings: AzureSettings, base: Path) -> None:
        self._clients, self._settings, self._base = clients, settings, base
        self._names = ResourceNames(settings)
        self._url = f"https://{settings.dps}/enrollmentGroups/{self._names.enrollment_group}"

    def document(self, hub: str) -> dict[str, Any]:
        """The enrolment group as it is to be.

        Args:
            hub: host of the hub that the group of new devices is in.
        """
        tags = {"fleet": self._names.prefix, "group": self._settings.provision_group}
        return {
            "enrollmentGroupId": self._names.enrollment_group,
            "attestation": self._attestation(),
            "capabilities": {"iotEdge": True},
            "provisioningStatus": "enabled",
            "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
            "initialTwin": {"tags": {"edgefleet": tags}, "properties": {"desired": {}}},
            "allocationPolicy": "hashed",
            "iotHubs": [hub],
        }

    def _attestation(self) -> dict[str, Any]:
        authority = self._settings.provision_ca
        if authority is None:
            return {"type": "symmetricKey", "symmetricKey": {}}  # the service makes the keys
        certificate = (self._base / authority).read_text(encoding="ascii")
        primary = {"certificate": certificate}
        return {"type": "x509", "x509": {"signingCertificates": {"primary": primary}}}

    def read(self) -> dict[str, Any] | None:
        """The enrolment group that is there; None for none."""
        try:
            return read_answer(self._call("GET"), dict[str, Any])
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise

    def apply(self, wanted: Mapping[str, Any]) -> None:
        """Have it as wanted; nothing is sent when it is.

        Raises:
            ConflictError: somebody else changed it meanwhile.
        """
        there = self.read()
        if there is None:
            self._call("PUT", body=wanted)
        elif not same(there, wanted):
            attestation = wanted["attestation"]
            if attestation["type"] == there["attestation"]["type"] == "symmetricKey":
                # Devices hold keys made of its keys, which an update without them makes anew.
                found = self._call("POST", "/attestationmechanism")
                attestation = read_answer(found, dict[str, Any])
            changed = {**wanted, "attestation": attestation}
            headers = {"If-Match": f'"{there["etag"].strip(QUOTE)}"'}
            self._call("PUT", body=changed, headers=headers)

    def remove(self) -> None:
        """Delete it; devices that registered stay. No error when it isn't there."""
        try:
            self._call("DELETE")
        except Exception as error:
            if status_of(error) != 404:
                raise

    def _call(
        self,
        method: str,
        below: str = "",
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:  # noqa: ANN401 - azure-core's response
        return self._clients.call(
            method,
            f"{self._url}{below}",
            audience=AUDIENCE,
            parameters={"api-version": SERVICE_API},
            body=body,
            headers=headers,
        )


def same(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an enrolment group is as wanted; what the service adds counts for nothing."""

    def held(found: Any, asked: Any) -> bool:  # noqa: ANN401 - JSON
        if isinstance(asked, dict):
            return isinstance(found, dict) and all(
                key in found and held(found[key], item) for key, item in asked.items()
            )
        return bool(found == asked)

    return held({**there, "attestation": None}, {**wanted, "attestation": None}) and (
        _shown(there["attestation"]) == _shown(wanted["attestation"])
    )


def _shown(attestation: Mapping[str, Any]) -> tuple[str, str]:
    """What of an attestation the service shows again: of a certificate, whose it is."""
    certificates = attestation.get("x509", {}).get("signingCertificates", {})
    primary = certificates.get("primary", {})
    text = str(primary.get("certificate", ""))
    thumbprint = str(primary.get("info", {}).get("sha256Thumbprint", ""))
    if text and not thumbprint:
        body = "".join(text.split("-----")[2].split()) if "-----" in text else text
        thumbprint = hashlib.sha256(base64.b64decode(body)).hexdigest()
    return str(attestation.get("type")), thumbprint.upper()


def device_key(group_key: str, registration_id: str) -> str:
    """The key of one device of an enrolment group with symmetric keys.

    https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation

    Args:
        group_key: of the enrolment group, Base64.
        registration_id: name of the device.
    """
    made = hmac.new(base64.b64decode(group_key), registration_id.encode(), hashlib.sha256)
    return base64.b64encode(made.digest()).decode()


def device_documents(settings: AzureSettings, id_scope: str | None) -> Iterator[tuple[str, bytes]]:
    """Path and content of what a new device starts with: IoT Edge's ``config.toml``.

    Args:
        settings: of the fleet.
        id_scope: of the provisioning service; None where it isn't made yet.
    """
    scope = id_scope or "ID-SCOPE"
    lines = [
        "# /etc/aziot/config.toml of a new device; DEVICE is its name, and its own in the fleet.",
        "[provisioning]",
        'source = "dps"',
        f"global_endpoint = {json.dumps(GLOBAL_ENDPOINT)}",
        f"id_scope = {json.dumps(scope)}",
        "",
        "[provisioning.attestation]",
    ]
    if settings.provision_ca is None:
        lines += [
            'method = "symmetric_key"',
            'registration_id = "DEVICE"',
            'symmetric_key = { value = "DEVICE-KEY" }',
        ]
    else:
        lines += [
            'method = "x509"',
            'registration_id = "DEVICE"',
            'identity_cert = "file:///var/aziot/certs/DEVICE.pem"',
            'identity_pk = "file:///var/aziot/secrets/DEVICE.key.pem"',
        ]
    yield "iotedge-config.toml", "\n".join(lines).encode() + b"\n"
