"""New devices that register themselves with a claim certificate: what AWS and they are told.

Pure. The claim certificate may do one thing only, which is to become a device: a thing that is
there already is refused, so that nobody who has the claim takes over a device's name.

https://docs.aws.amazon.com/iot/latest/developerguide/provision-wo-cert.html#claim-based
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_aws.names import Names

_CLAIMS = "/greengrass/v2/claim-certs"
_DEVICE = "NAME-OF-THE-DEVICE"
_CREATE = "$aws/certificates/create*"  # with keys, as classic does; from a CSR, as lite does
_REGISTER = "$aws/provisioning-templates/{}/provision/*"


def template_body(names: Names, group: str) -> str:
    """The provisioning template: a thing in the fleet's groups, with an active certificate.

    https://docs.aws.amazon.com/iot/latest/developerguide/provision-template.html
    """
    certificate = "AWS::IoT::Certificate::Id"
    content = {
        "Parameters": {"ThingName": {"Type": "String"}, certificate: {"Type": "String"}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Ref": "ThingName"},
                    "ThingGroups": [names.fleet_group, names.thing_group(group)],
                },
                "OverrideSettings": {
                    "AttributePayload": "FAIL",
                    "ThingTypeName": "FAIL",
                    "ThingGroups": "FAIL",
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": certificate}, "Status": "Active"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": names.cores}},
        },
    }
    return json.dumps(content, sort_keys=True)


def claim_resources(names: Names) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a claim certificate may do: each action with its resources, behind the account."""
    register = _REGISTER.format(names.provisioning)
    topics = (f"topic/{_CREATE}", f"topic/{register}")
    yield "iot:Connect", ("client/*",)  # the nuclei choose the client's name
    yield "iot:Publish", topics
    yield "iot:Receive", topics
    yield "iot:Subscribe", (f"topicfilter/{_CREATE}", f"topicfilter/{register}")


def core_resources(thing: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a nucleus itself needs, beside what the fleet's devices may do.

    https://docs.aws.amazon.com/greengrass/v2/developerguide/device-auth.html

    Args:
        thing: variable of policies that stands for the device's name.
    """
    own = f"$aws/things/{thing}*"
    topics = (
        f"topic/{own}/greengrass/health/json",
        f"topic/{own}/greengrassv2/health/json",
        f"topic/{own}/jobs/*",
        f"topic/{own}/shadow/*",
    )
    yield "iot:Connect", (f"client/{thing}*",)
    yield "iot:Publish", topics
    yield "iot:Receive", topics
    yield "iot:Subscribe", (f"topicfilter/{own}/jobs/*", f"topicfilter/{own}/shadow/*")


CORE_ACTIONS = (
    "greengrass:GetComponentVersionArtifact",
    "greengrass:GetDeploymentConfiguration",
    "greengrass:ListThingGroupsForCoreDevice",
    "greengrass:ResolveComponentCandidates",
)
"""Calls of a nucleus that AWS knows no narrower resource for."""


def device_documents(
    names: Names, region: str, data: str, credentials: str
) -> Iterator[tuple[str, bytes]]:
    """Configurations that new devices start with: a file's name and its content, for each nucleus.

    JSON, which is YAML too. ``NAME-OF-THE-DEVICE`` is each device's own.

    Args:
        names: of the fleet.
        region: of AWS IoT.
        data: address of its data endpoint.
        credentials: address of its credentials provider.
    """
    # https://docs.aws.amazon.com/greengrass/v2/developerguide/fleet-provisioning-configuration.html
    plugin = {
        "rootPath": "/greengrass/v2",
        "awsRegion": region,
        "iotDataEndpoint": data,
        "iotCredentialEndpoint": credentials,
        "iotRoleAlias": names.devices,
        "provisioningTemplate": names.provisioning,
        "claimCertificatePath": f"{_CLAIMS}/claim.pem.crt",
        "claimCertificatePrivateKeyPath": f"{_CLAIMS}/claim.private.pem.key",
        "rootCaPath": "/greengrass/v2/AmazonRootCA1.pem",
        "templateParameters": {"ThingName": _DEVICE},
    }
    services = {"aws.greengrass.FleetProvisioningByClaim": {"configuration": plugin}}
    yield "new-device-classic.yaml", _readable({"services": services})
    # docs/fleet_provisioning/fleet_provisioning.md of aws-greengrass-lite
    lite = {
        "system": {
            "privateKeyPath": "",
            "certificateFilePath": "",
            "rootCaPath": "",
            "rootPath": "/var/lib/greengrass/",
            "thingName": "",
        },
        "services": {
            "aws.greengrass.NucleusLite": {
                "componentType": "NUCLEUS",
                "configuration": {
                    "awsRegion": region,
                    "iotCredEndpoint": "",
                    "iotDataEndpoint": "",
                    "iotRoleAlias": names.devices,
                    "runWithDefault": {"posixUser": "ggcore:ggcore"},
                    "greengrassDataPlanePort": "8443",
                },
            },
            "aws.greengrass.fleet_provisioning": {
                "configuration": {
                    "iotDataEndpoint": data,
                    "iotCredEndpoint": credentials,
                    "rootCaPath": "/etc/greengrass/certs/AmazonRootCA1.pem",
                    "claimKeyPath": "/etc/greengrass/certs/claim.private.pem.key",
                    "claimCertPath": "/etc/greengrass/certs/claim.pem.crt",
                    "csrCommonName": "aws-greengrass-nucleus-lite",
                    "templateName": names.provisioning,
                    "templateParams": {"ThingName": _DEVICE},
                }
            },
        },
    }
    yield "new-device-lite.yaml", _readable(lite)


def _readable(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"
