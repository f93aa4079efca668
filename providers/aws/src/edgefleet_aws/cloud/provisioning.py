"""Fleet provisioning: templates, claims, and things that register themselves by them.

moto has none of it. On AWS a device registers by MQTT with its claim certificate; here the device's
side is a call, which is held to what the claim certificate's policies say of the same topics.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from moto.iot.models import iot_backends

from edgefleet.errors import AccessDeniedError
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.packages import ACCOUNT
from edgefleet_aws.cloud.policies import allows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CLAIM_S = 300  # a claim for a trusted user; CreateProvisioningClaim
_CREATE = {False: "$aws/certificates/create/json", True: "$aws/certificates/create-from-csr/json"}
_CERTIFICATE = "AWS::IoT::Certificate::Id"


class Provisioning:
    """Provisioning templates of an account, and what is done by them.

    Args:
        region: of everything.
        clock: gives the time.
    """

    def __init__(self, region: str, clock: Callable[[], dt.datetime]) -> None:
        self._region = region
        self._clock = clock
        self._iot = iot_backends[ACCOUNT][region]
        self._templates: dict[str, dict[str, Any]] = {}

    def clear(self) -> None:
        """Forget every template."""
        self._templates.clear()

    def operations(self) -> dict[str, Any]:
        """The service's operations on templates."""
        return {
            "CreateProvisioningTemplate": self.create,
            "DescribeProvisioningTemplate": self._describe,
            "DeleteProvisioningTemplate": self.delete,
            "ListProvisioningTemplates": self._list,
            "CreateProvisioningClaim": self._claim,
            "RegisterThing": self._register_thing,
        }

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Make a template."""
        name = request["templateName"]
        if name in self._templates:
            raise Fault("ResourceAlreadyExistsException", f"template {name} exists", 409)
        _read(request["templateBody"])
        now = self._clock()
        self._templates[name] = {
            "templateArn": f"arn:aws:iot:{self._region}:{ACCOUNT}:provisioningtemplate/{name}",
            "enabled": False,
            "type": "FLEET_PROVISIONING",
            **{key: value for key, value in request.items() if key != "tags"},
            "defaultVersionId": 1,
            "creationDate": now,
            "lastModifiedDate": now,
        }
        made = self._templates[name]
        return {key: made[key] for key in ("templateArn", "templateName", "defaultVersionId")}

    def delete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Delete a template."""
        self._one(request["templateName"])
        del self._templates[request["templateName"]]
        return {}

    def _describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._one(request["templateName"])

    def _list(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        shown = ("templateArn", "templateName", "creationDate", "enabled", "type")
        found = [{key: one[key] for key in shown} for one in self._templates.values()]
        return {"templates": found}

    def _one(self, name: str) -> dict[str, Any]:
        if name not in self._templates:
            raise Fault("ResourceNotFoundException", f"no template {name}", 404)
        return self._templates[name]

    def _claim(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._one(request["templateName"])
        certificate, pair = self._iot.create_keys_and_certificate(set_as_active=True)
        return {
            "certificateId": certificate.certificate_id,
            "certificatePem": certificate.certificate_pem,
            "keyPair": pair,
            "expiration": self._clock() + dt.timedelta(seconds=CLAIM_S),
        }

    def _register_thing(self, request: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(request.get("parameters", {}))
        thing, certificate = self._register(request["templateBody"], parameters)
        return {
            "certificatePem": certificate.certificate_pem,
            "resourceArns": {"thing": thing.arn, "certificate": certificate.arn},
        }

    # The device's side

    def provision(
        self, template: str, claim: str, parameters: Mapping[str, str], *, csr: bool = False
    ) -> str:
        """Register a device by a template, as its nucleus does; the name of its thing.

        Args:
            template: name of the template.
            claim: ARN of the claim certificate.
            parameters: for the template.
            csr: whether the device makes its own key, as the light nucleus does.

        Raises:
            AccessDeniedError: the claim certificate is not active, or its policies don't allow it.
            Fault: the template isn't there or not enabled, or refuses.
        """
        self._check_claim(claim, (_CREATE[csr], f"$aws/provisioning-templates/{template}"))
        found = self._one(template)
        if not found["enabled"]:
            raise Fault("InvalidRequestException", f"template {template} is not enabled")
        certificate, _ = self._iot.create_keys_and_certificate(set_as_active=False)
        given = {**parameters, _CERTIFICATE: certificate.certificate_id}
        thing, _ = self._register(found["templateBody"], given)
        return str(thing.thing_name)

    def _check_claim(self, claim: str, topics: tuple[str, str]) -> None:
        create, template = topics
        certificate = self._iot.certificates.get(claim.rpartition("/")[2])
        if certificate is None or certificate.status != "ACTIVE":
            raise AccessDeniedError("the claim certificate is not active")
        documents: list[Any] = [one.document for one in self._iot.list_attached_policies(claim)]
        read = [json.loads(one) if isinstance(one, str) else one for one in documents]
        for request in (create, f"{template}/provision/json"):
            for action, resource in (
                ("iot:Connect", "client/new"),
                ("iot:Publish", f"topic/{request}"),
                ("iot:Subscribe", f"topicfilter/{request}/accepted"),
                ("iot:Receive", f"topic/{request}/accepted"),
            ):
                arn = f"arn:aws:iot:{self._region}:{ACCOUNT}:{resource}"
                if not allows(read, action, arn, {}):
                    raise AccessDeniedError(f"the claim certificate may not do {action} on {arn}")

    def _register(self, body: str, given: Mapping[str, str]) -> tuple[Any, Any]:
        """Make what a template says: its thing, with the certificate that it names."""
        template = _read(body)
        parameters = _parameters(template, given)
        resources = {
            one["Type"]: {**one, "Properties": _resolved(one["Properties"], parameters)}
            for one in template["Resources"].values()
        }
        wanted = resources["AWS::IoT::Thing"]
        name = wanted["Properties"]["ThingName"]
        there = any(one.thing_name == name for one in self._iot.things.values())
        if there and "FAIL" in wanted.get("OverrideSettings", {}).values():
            raise Fault("ResourceConflictException", f"thing {name} is there already", 409)
        identity = resources["AWS::IoT::Certificate"]["Properties"]["CertificateId"]
        certificate = self._iot.describe_certificate(identity)
        groups = wanted["Properties"].get("ThingGroups", ())
        for group in groups:
            self._iot.describe_thing_group(group)  # before anything is made
        policy = resources["AWS::IoT::Policy"]["Properties"]["PolicyName"]
        self._iot.attach_policy(policy, certificate.arn)
        if not there:
            self._iot.create_thing(name, "", None)
        for group in groups:
            self._iot.add_thing_to_thing_group(group, None, name, None)
        certificate.status = resources["AWS::IoT::Certificate"]["Properties"]["Status"].upper()
        self._iot.attach_thing_principal(name, certificate.arn)
        return self._iot.describe_thing(name), certificate


def _read(body: str) -> dict[str, Any]:
    try:
        template: dict[str, Any] = json.loads(body)
        kinds = {one["Type"] for one in template["Resources"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fault("InvalidRequestException", f"the template makes no sense: {error}") from error
    known = {"AWS::IoT::Thing", "AWS::IoT::Certificate", "AWS::IoT::Policy"}
    if kinds != known:
        said = f"the mock's templates have {', '.join(sorted(known))}, one each"
        raise Fault("InvalidRequestException", said)
    return template


def _parameters(template: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    known = template.get("Parameters", {})
    missing = [key for key in known if key not in given and "Default" not in known[key]]
    unknown = sorted(given.keys() - known.keys())
    if missing or unknown:
        said = f"parameters missing: {missing}, unknown: {unknown}"
        raise Fault("InvalidRequestException", said)
    found = {key: given.get(key, known[key].get("Default", "")) for key in known}
    name = found.get("ThingName", "")
    if not re.fullmatch(r"[a-zA-Z0-9:_-]{1,128}", name):
        raise Fault("InvalidRequestException", f"no name of a thing: {name!r}")
    return found


def _resolved(value: Any, parameters: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        if value.keys() == {"Ref"}:
            return parameters[value["Ref"]]
        return {key: _resolved(item, parameters) for key, item in value.items()}
    return [_resolved(item, parameters) for item in value] if isinstance(value, list) else value
