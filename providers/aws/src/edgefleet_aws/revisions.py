"""Greengrass deployments as documents: what one is, and how ours differs from the one in place.

Pure. A revision replaces a target's whole component list, so whatever others put there is copied,
and only our own component is changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgefleet.errors import DocumentError, LimitExceededError
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_aws.names import RELEASE, RELEASE_VERSION, Names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.protocol.pointer import Pointer
    from edgefleet_aws.settings import AwsSettings

MAX_MERGE_BYTES = 7 << 10
"""Of an update of configuration: devices get a larger one only with a permission of its own.

https://docs.aws.amazon.com/greengrass/v2/developerguide/device-service-role.html
"""
KEPT = ("deploymentName", "components", "deploymentPolicies", "iotJobConfiguration")
"""What GetDeployment tells of what CreateDeployment was given."""
# A component of ours that fails takes nothing of others back with it.
_POLICIES = {
    "failureHandlingPolicy": "DO_NOTHING",
    "componentUpdatePolicy": {"timeoutInSeconds": 60, "action": "NOTIFY_COMPONENTS"},
}


def base_settings(settings: AwsSettings, region: str) -> dict[str, str]:
    """The configuration of `RELEASE` that lets devices reach what is the fleet's."""
    names = Names(settings)
    return {
        "bucket": settings.bucket,
        "prefix": settings.prefix,
        "region": region,
        "endpoint": settings.endpoint_url or "",
        "hotTopic": names.hot_topic("{thing}"),
    }


def told(settings: AwsSettings, region: str, pointer: Pointer) -> dict[str, str]:
    """The configuration of `RELEASE` that gives devices a pointer and what they need for it."""
    return {**base_settings(settings, region), "pointer": pointer.encoded().decode()}


def revised(
    there: Mapping[str, Any] | None, target: str, name: str, settings: Mapping[str, str]
) -> dict[str, Any]:
    """The request that puts ``settings`` in place and leaves everything else as it is.

    Args:
        there: the deployment in place, as GetDeployment gives it; None for none.
        target: ARN of the thing group.
        name: of a first deployment.
        settings: the configuration of `RELEASE`.
    """
    kept: dict[str, Any] = {"deploymentName": name, "deploymentPolicies": _POLICIES}
    if there is not None:
        kept = {key: there[key] for key in KEPT if there.get(key)}
    return with_settings({"targetArn": target, **kept}, settings)


def with_settings(request: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, Any]:
    """The request with another configuration of `RELEASE`.

    Raises:
        LimitExceededError: devices would need another permission to get one of that size.
    """
    merge = json.dumps(settings, sort_keys=True)
    if len(merge.encode()) > MAX_MERGE_BYTES:
        raise LimitExceededError(
            f"the configuration of {RELEASE} would have {len(merge.encode())} bytes, "
            f"{MAX_MERGE_BYTES} are allowed",
            cure="shorten the addresses of the fleet's mirrors and sources",
        )
    ours = {"componentVersion": RELEASE_VERSION, "configurationUpdate": {"merge": merge}}
    return {**request, "components": {**request.get("components", {}), RELEASE: ours}}


def base(
    there: Mapping[str, Any] | None,
    target: str,
    names: Names,
    version: str,
    settings: Mapping[str, str],
) -> dict[str, Any]:
    """The request that has every device of a fleet install the runtime; see `revised`.

    Args:
        there: the deployment in place; None for none.
        target: ARN of the fleet's thing group.
        names: of the fleet.
        version: of the runtime's component.
        settings: the configuration of `RELEASE`.
    """
    request = revised(there, target, f"{names.prefix} runtime", settings)
    ours = {**request["components"].get(names.runtime, {}), "componentVersion": version}
    return {**request, "components": {**request["components"], names.runtime: ours}}


def has_ours(there: Mapping[str, Any], names: Names) -> bool:
    """Whether a deployment has components of ours."""
    return bool({names.runtime, RELEASE} & (there.get("components") or {}).keys())


def without_ours(there: Mapping[str, Any], target: str, names: Names) -> dict[str, Any]:
    """The request that takes our components out and leaves everything else."""
    ours = {names.runtime, RELEASE}
    kept = {key: there[key] for key in KEPT if there.get(key)}
    others = {name: one for name, one in kept.get("components", {}).items() if name not in ours}
    return {"targetArn": target, **kept, "components": others}


def pointer_of(deployment: Mapping[str, Any] | None) -> Pointer | None:
    """The pointer that a deployment carries; None for none.

    Raises:
        DocumentError: somebody wrote there what is none.
    """
    text = settings_of(deployment).get("pointer")
    return read_pointer(text.encode()) if isinstance(text, str) and text else None


def settings_of(deployment: Mapping[str, Any] | None) -> dict[str, Any]:
    """The configuration of `RELEASE` that a deployment carries; empty for none.

    Raises:
        DocumentError: somebody wrote there what is none.
    """
    component = ((deployment or {}).get("components") or {}).get(RELEASE) or {}
    merge = (component.get("configurationUpdate") or {}).get("merge")
    try:
        return {} if merge is None else decoder(dict[str, Any]).decode(merge)
    except UNREADABLE as error:
        raise DocumentError(f"the configuration of {RELEASE} is no JSON object") from error


def document(request: Mapping[str, Any]) -> bytes:
    """A request as people read it."""
    return json.dumps(request, indent=2, sort_keys=True).encode() + b"\n"
