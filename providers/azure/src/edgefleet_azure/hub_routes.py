"""The route that what runtimes say takes in a hub of somebody else's.

A hub delivers messages to its built-in endpoint by itself, until somebody routes them elsewhere.
Then ours get a route of their own. It is written into the hub as it was read, on its ETag.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces.answers import read_answer
from edgefleet.interfaces.values import Action, Rendered
from edgefleet_azure.errors import status_of
from edgefleet_azure.resource_names import TAG
from edgefleet_azure.template import HUB_API, HUBS, route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.resource_names import ResourceNames


class HubRoute:
    """The fleet's route in one hub.

    Args:
        clients: to reach Azure Resource Manager with.
        names: of the fleet's resources.
        host: of the hub.
    """

    def __init__(self, clients: Clients, names: ResourceNames, host: str) -> None:
        self._clients, self._names = clients, names
        self._name = names.hubs[host]
        self._path = names.of(HUBS, self._name)

    def add(self) -> None:
        """Add it where messages wouldn't arrive without; no call where they would.

        Raises:
            ConflictError: somebody else changed the hub meanwhile.
        """
        there = self._read()
        if there is not None and self._lacks(there):
            self._write(there, [*_routes(there), route(self._names)])

    def remove(self) -> None:
        """Take it out again; no error where it isn't."""
        there = self._read()
        if there is None or (there.get("tags") or {}).get(TAG) == self._names.prefix:
            return  # a hub of ours has its routes from the template
        left = [one for one in _routes(there) if one["name"] != self._names.route]
        if len(left) < len(_routes(there)):
            self._write(there, left)

    def documents(self) -> Iterator[Rendered]:
        """What `add` would send; nothing where it would send nothing."""
        there = self._read()
        if there is not None and self._lacks(there):
            content = json.dumps(route(self._names), indent=2).encode() + b"\n"
            path = f"route-{self._name}.json"
            yield Rendered(path=path, content=content, action=Action.UPDATE)

    def _lacks(self, hub: dict[str, Any]) -> bool:
        """Whether messages of ours may be kept from the built-in endpoint."""
        routing = hub["properties"].get("routing") or {}
        if any(one["name"] == self._names.route for one in _routes(hub)):
            return False
        fallback = routing.get("fallbackRoute") or {"isEnabled": True}
        taken = any(one["source"] == "DeviceMessages" and one["isEnabled"] for one in _routes(hub))
        return taken or not fallback["isEnabled"]

    def _read(self) -> dict[str, Any] | None:
        try:
            found = self._clients.arm("GET", self._path, api_version=HUB_API)
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise
        return read_answer(found, dict[str, Any])

    def _write(self, hub: dict[str, Any], routes: list[dict[str, Any]]) -> None:
        properties = hub["properties"]
        routing = {**(properties.get("routing") or {}), "routes": routes}
        changed = {**hub, "properties": {**properties, "routing": routing}}
        headers = {"If-Match": str(hub["etag"])}
        self._clients.arm("PUT", self._path, api_version=HUB_API, body=changed, headers=headers)


def _routes(hub: dict[str, Any]) -> list[dict[str, Any]]:
    return list((hub["properties"].get("routing") or {}).get("routes") or ())
