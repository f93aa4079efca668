"""The Device Provisioning Service: enrolment groups, and devices that register by them.

Rules kept here, each in ``mock_rules.md``:

- An enrolment group is changed on its ETag; the service makes the keys that it isn't given, anew
  each time, and shows of a certificate whose it is, and never the certificate.
- A device shows that it knows the key that its enrolment group's key makes for its name. It is put
  into a hub of the group with the twin that the group says; one that is there keeps its twin.
- Devices with certificates can't register here: no request of theirs carries one.

https://learn.microsoft.com/rest/api/iot-dps/
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import parse_qs, quote

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.calls import Call
from edgefleet_azure.cloud.server import Route
from edgefleet_azure.provisioning import AUDIENCE, device_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_KNOWN = {
    "allocationPolicy",
    "attestation",
    "capabilities",
    "enrollmentGroupId",
    "etag",
    "initialTwin",
    "iotHubs",
    "provisioningStatus",
    "reprovisionPolicy",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
}
_POLICIES = {"hashed", "geoLatency", "static"}
_REGISTRATION = "/{scope}/registrations/{name}"


class Hubs(Protocol):
    """Where devices are put."""

    def hosts(self) -> Sequence[str] | None:
        """Hubs that the service is linked to; None where there is no service."""

    def put(self, host: str, device: str, *, edge: bool, twin: Mapping[str, Any]) -> None:
        """Have a device in a hub, with this twin where it is new."""


class _Assigned(NamedTuple):
    host: str
    came: str


class Provisioning:
    """One Device Provisioning Service.

    Args:
        hubs: that it is linked to.
        scope: its id scope.
        clock: gives the time, in seconds of the epoch.
    """

    audience = AUDIENCE

    def __init__(
        self, hubs: Hubs, *, scope: str = "0ne00000001", clock: Callable[[], float] = time.time
    ) -> None:
        self._hubs = hubs
        self.scope = scope
        self._clock = clock
        self._groups: dict[str, dict[str, Any]] = {}
        self._assigned: dict[str, _Assigned] = {}

    @property
    def routes(self) -> Sequence[Route]:
        """The service's own API, and that of devices."""
        one = "/enrollmentGroups/{name}"
        status = f"{_REGISTRATION}/operations/{{id}}"
        return (
            Route("dps.QueryGroups", "POST", "/enrollmentGroups/query", self._query),
            Route("dps.GetKeys", "POST", f"{one}/attestationmechanism", self._keys),
            Route("dps.GetGroup", "GET", one, self._get),
            Route("dps.PutGroup", "PUT", one, self._put),
            Route("dps.DeleteGroup", "DELETE", one, self._delete),
            Route("dps.Register", "PUT", f"{_REGISTRATION}/register", self._register, open=True),
            Route("dps.GetRegistration", "GET", status, self._registered, open=True),
        )

    # The service's own API

    def _linked(self) -> Sequence[str]:
        found = self._hubs.hosts()
        if found is None:
            raise Refused(404, "IotDpsNotFound", "There is no provisioning service here.")
        return found

    def _group(self, call: Call) -> dict[str, Any]:
        self._linked()
        found = self._groups.get(call.parts["name"])
        if found is None:
            raise Refused(404, "EnrollmentGroupNotFound", "Enrollment group not found.")
        return found

    def _get(self, call: Call) -> Reply:
        return Reply(body=_shown(self._group(call)))

    def _keys(self, call: Call) -> Reply:
        return Reply(body=self._group(call)["attestation"])

    def _query(self, call: Call) -> Reply:
        return Reply(body=[_shown(one) for one in self._groups.values()])

    def _delete(self, call: Call) -> Reply:
        del self._groups[self._group(call)["enrollmentGroupId"]]
        return Reply(204)

    def _put(self, call: Call) -> Reply:
        name, body = call.parts["name"], call.json()
        there = self._groups.get(name)
        _on_etag(call, there)
        self._check(name, body)
        now = datetime.now(UTC).isoformat()
        made = {
            **body,
            "attestation": _attestation(body["attestation"]),
            "etag": f'"{secrets.token_urlsafe(9)}"',
            "createdDateTimeUtc": now if there is None else there["createdDateTimeUtc"],
            "lastUpdatedDateTimeUtc": now,
        }
        self._groups[name] = made
        return Reply(body=_shown(made))

    def _check(self, name: str, body: Mapping[str, Any]) -> None:
        if body.get("enrollmentGroupId") != name:
            raise Refused(400, "InvalidInput", "enrollmentGroupId differs from the address")
        unknown = body.keys() - _KNOWN
        if unknown:
            raise Refused(400, "InvalidInput", f"unknown members: {sorted(unknown)}")
        if body.get("allocationPolicy", "hashed") not in _POLICIES:
            raise Refused(400, "InvalidInput", "allocationPolicy is none of the service's")
        linked = {host.lower() for host in self._linked()}
        stranger = {host.lower() for host in body.get("iotHubs", ())} - linked
        if stranger:
            raise Refused(400, "InvalidInput", f"not linked to {sorted(stranger)}")

    # Devices

    def _register(self, call: Call) -> Reply:
        name = call.parts["name"]
        group = self._shown_key(call, name)
        if group["provisioningStatus"] != "enabled":
            raise Refused(401, "Unauthorized", "The enrollment group is disabled.")
        hosts = group.get("iotHubs") or self._linked()
        if not hosts:
            raise Refused(400, "IotHubNotFound", "The service is linked to no hub.")
        before = self._assigned.get(name)
        host = _hashed(name, hosts) if before is None else before.host
        edge = bool(group.get("capabilities", {}).get("iotEdge"))
        self._hubs.put(host, name, edge=edge, twin=group.get("initialTwin") or {})
        self._assigned[name] = _Assigned(host, datetime.now(UTC).isoformat())
        number = f"4.{uuid.uuid4().hex}"
        return Reply(202, {"operationId": number, "status": "assigning"}, {"Retry-After": "0"})

    def _registered(self, call: Call) -> Reply:
        name = call.parts["name"]
        self._shown_key(call, name)
        found = self._assigned.get(name)
        if found is None:
            raise Refused(404, "NotFound", "There is no such registration.")
        state = {
            "registrationId": name,
            "deviceId": name,
            "assignedHub": found.host,
            "status": "assigned",
            "substatus": "initialAssignment",
            "createdDateTimeUtc": found.came,
            "lastUpdatedDateTimeUtc": found.came,
        }
        return Reply(
            body={
                "operationId": call.parts["id"],
                "status": "assigned",
                "registrationState": state,
            }
        )

    def _shown_key(self, call: Call, name: str) -> dict[str, Any]:
        """The enrolment group whose key a device shows that it has."""
        scheme, _, rest = call.headers.get("authorization", "").partition(" ")
        found = {key: value[0] for key, value in parse_qs(rest).items()}
        audience = f"{self.scope}/registrations/{name}"
        right = scheme == "SharedAccessSignature" and found.get("sr") == audience
        if right and float(found.get("se", 0)) > self._clock():
            for group in self._groups.values():
                for key in group["attestation"].get("symmetricKey", {}).values():
                    wanted = signature(device_key(key, name), audience, found["se"])
                    if hmac.compare_digest(wanted, found.get("sig", "")):
                        return group
        raise Refused(401, "Unauthorized", "The device shows no key of an enrollment.")

    # Kept over restarts

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Enrolment groups and registrations."""
        return {"scope": self.scope, "groups": self._groups, "assigned": self._assigned}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have what there was."""
        self.scope, self._groups = kept["scope"], kept["groups"]
        self._assigned = {name: _Assigned(*one) for name, one in kept["assigned"].items()}


def signature(key: str, audience: str, expires: str) -> str:
    """The signature of a device's SAS token.

    Args:
        key: of the device, Base64.
        audience: what it is for, not yet quoted.
        expires: seconds of the epoch, as the token says them.
    """
    signed = f"{quote(audience, safe='')}\n{expires}".encode()
    made = hmac.new(base64.b64decode(key), signed, hashlib.sha256)
    return base64.b64encode(made.digest()).decode()


def _on_etag(call: Call, there: Mapping[str, Any] | None) -> None:
    wanted = call.headers.get("if-match", "").strip('"')
    if there is not None and not wanted:
        raise Refused(409, "Conflict", "The enrollment group is there already.")
    if wanted not in {"", "*"} and (there is None or there["etag"].strip('"') != wanted):
        raise Refused(412, "PreconditionFailed", "The enrollment group was changed meanwhile.")


def _attestation(asked: Mapping[str, Any]) -> dict[str, Any]:
    if asked.get("type") == "symmetricKey":
        given = {key: value for key, value in asked.get("symmetricKey", {}).items() if value}
        for name in ("primaryKey", "secondaryKey"):
            given.setdefault(name, base64.b64encode(secrets.token_bytes(64)).decode())
        return {"type": "symmetricKey", "symmetricKey": given}
    if asked.get("type") == "x509":
        certificate = asked["x509"]["signingCertificates"]["primary"]["certificate"]
        body = certificate.split("-----")[2] if "-----" in certificate else certificate
        thumb = hashlib.sha256(base64.b64decode("".join(body.split()))).hexdigest().upper()
        primary = {"info": {"sha256Thumbprint": thumb}}
        return {"type": "x509", "x509": {"signingCertificates": {"primary": primary}}}
    raise Refused(400, "InvalidInput", "attestation is none that the service knows for groups")


def _shown(group: Mapping[str, Any]) -> dict[str, Any]:
    """An enrolment group without its keys: those are asked for apart."""
    shown = dict(group)
    if group["attestation"]["type"] == "symmetricKey":
        shown["attestation"] = {"type": "symmetricKey"}
    return shown


def _hashed(name: str, hosts: Sequence[str]) -> str:
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return hosts[number % len(hosts)]
