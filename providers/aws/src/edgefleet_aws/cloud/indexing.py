"""Fleet indexing's setting of the account; moto keeps one, and forgets what it doesn't know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_aws.cloud.calls import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SHADOWS = 10  # AWS IoT Device Management quotas, fleet indexing: named shadows in the index


class Indexing:
    """The setting, and the two operations on it."""

    def __init__(self) -> None:
        self._things: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        self.clear()

    def clear(self) -> None:
        """As it is in an account where nobody has touched it."""
        self._things = {
            "thingIndexingMode": "OFF",
            "thingConnectivityIndexingMode": "OFF",
            "deviceDefenderIndexingMode": "OFF",
            "namedShadowIndexingMode": "OFF",
            "managedFields": [],
            "customFields": [],
            "filter": {"namedShadowNames": []},
        }
        self._groups = {
            "thingGroupIndexingMode": "OFF",
            "managedFields": [],
            "customFields": [],
        }

    def operations(self) -> dict[str, Any]:
        """The service's operations on the setting."""
        return {
            "GetIndexingConfiguration": self._get,
            "UpdateIndexingConfiguration": self._update,
        }

    def _get(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "thingIndexingConfiguration": self._things,
            "thingGroupIndexingConfiguration": self._groups,
        }

    def _update(self, request: Mapping[str, Any]) -> None:
        """Put what is sent in place of what was there; what isn't sent of it is gone."""
        things = request.get("thingIndexingConfiguration")
        if things is not None:
            self._things = {**_checked(things), "managedFields": _managed(things)}
        self._groups = dict(request.get("thingGroupIndexingConfiguration", self._groups))


def _checked(things: Mapping[str, Any]) -> Mapping[str, Any]:
    shadows = things.get("filter", {}).get("namedShadowNames", ())
    if len(shadows) > MAX_SHADOWS:
        raise Fault("LimitExceededException", f"over {MAX_SHADOWS} named shadows")
    more = [
        mode
        for mode in ("thingConnectivity", "deviceDefender", "namedShadow")
        if things.get(f"{mode}IndexingMode", "OFF") != "OFF"
    ]
    if things["thingIndexingMode"] == "OFF" and more:
        raise Fault("InvalidRequestException", f"{', '.join(more)} without thing indexing")
    if "namedShadow" in more and not shadows:
        raise Fault("InvalidRequestException", "named shadow indexing needs a filter")
    return things


def _managed(things: Mapping[str, Any]) -> list[dict[str, str]]:
    """The fields that AWS itself fills in by the modes that are on, as far as told apart here."""
    if things["thingIndexingMode"] == "OFF":
        return []
    return [
        {"name": "thingName", "type": "String"},
        *(
            {"name": f"shadow.name.{name}.hasDelta", "type": "Boolean"}
            for name in things.get("filter", {}).get("namedShadowNames", ())
        ),
    ]
