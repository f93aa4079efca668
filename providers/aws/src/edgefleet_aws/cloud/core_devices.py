"""Greengrass's view of core devices: what each last said of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.components import paged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_aws.cloud.device_cloud import Known


class CoreDevices:
    """Operations on core devices.

    Args:
        known: every core device that was ever up.
        members: things of a thing group by its ARN.
    """

    def __init__(
        self, known: Mapping[str, Known], members: Callable[[str], frozenset[str]]
    ) -> None:
        self._known = known
        self._members = members

    def operations(self) -> dict[str, Any]:
        """The service's operations on core devices."""
        return {
            "GetCoreDevice": self._get,
            "ListCoreDevices": self._list,
            "ListInstalledComponents": self._installed,
        }

    def _get(self, request: Mapping[str, Any]) -> dict[str, Any]:
        thing = request["coreDeviceThingName"]
        known = self._one(thing)
        return {
            **_summary(thing, known),
            "coreVersion": known.facts.version,
            "architecture": known.facts.architecture,
        }

    def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        wanted = request.get("thingGroupArn")
        members = None if wanted is None else self._members(wanted)
        found = [
            summary
            for thing, known in sorted(self._known.items())
            if (members is None or thing in members)
            and (summary := _summary(thing, known))["status"]
            == request.get("status", summary["status"])
        ]
        return paged("coreDevices", found, request)

    def _installed(self, request: Mapping[str, Any]) -> dict[str, Any]:
        known = self._one(request["coreDeviceThingName"])
        found = [
            {
                "componentName": name,
                "componentVersion": version,
                "lifecycleState": state,
                "isRoot": True,
                "lastStatusChangeTimestamp": known.heard,
            }
            for name, (version, state) in known.facts.components.items()
        ]
        return paged("installedComponents", found, request)

    def _one(self, thing: str) -> Known:
        found = self._known.get(thing)
        if found is None:
            raise Fault(
                "ResourceNotFoundException",
                f"Core device {thing} not found",
                404,
                resourceId=thing,
                resourceType="CoreDevice",
            )
        return found


def _summary(thing: str, known: Known) -> dict[str, Any]:
    return {
        "coreDeviceThingName": thing,
        "status": "HEALTHY" if known.facts.healthy else "UNHEALTHY",
        "lastStatusUpdateTimestamp": known.heard,
        "platform": "linux",
        "runtime": known.facts.runtime,
    }
