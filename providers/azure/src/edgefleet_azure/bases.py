"""The base deployment in each of the fleet's hubs.

What a deployment holds can't be changed, so another content is another deployment. Of two with one
priority the newer wins, so the new one is made before the old one goes, and no device is without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.values import Action, Rendered
from edgefleet_azure import manifests
from edgefleet_azure.hubs import Hub
from edgefleet_azure.resource_names import name_of_host

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings


class Bases:
    """The base deployments of one fleet.

    Args:
        clients: to reach the hubs with.
        settings: of the fleet.
    """

    def __init__(self, clients: Clients, settings: AzureSettings) -> None:
        self._clients, self._settings = clients, settings

    def apply(self) -> None:
        """Have it in every hub, and no older one; no call that changes anything where it is."""
        wanted = manifests.base(self._settings)
        for host in self._settings.hubs:
            hub, there = self._hub(host), self._there(host)
            if wanted["id"] not in there:
                hub.create_configuration(wanted)
            for name in there - {wanted["id"]}:
                hub.delete_configuration(name)

    def documents(self, made: Collection[str]) -> Iterator[Rendered]:
        """What `apply` would send, for each hub.

        Args:
            made: hosts of the hubs that are there.
        """
        wanted = manifests.base(self._settings)
        for host in self._settings.hubs:
            there = self._there(host) if host in made else set()
            action = Action.UPDATE if there else Action.CREATE
            if wanted["id"] in there:
                action = Action.UNCHANGED
            path = f"base-{name_of_host(host)}.json"
            yield Rendered(path=path, content=manifests.encoded(wanted), action=action)

    def remove(self, made: Collection[str]) -> None:
        """Delete every deployment of the fleet, layers too.

        Args:
            made: hosts of the hubs that are there.
        """
        for host in made:
            hub = self._hub(host)
            for one in hub.configurations():
                if manifests.is_ours(one, self._settings.prefix):
                    hub.delete_configuration(one["id"])

    def shared(self, host: str) -> bool:
        """Whether a hub has deployments of another fleet."""
        fleets = {manifests.fleet_of(one) for one in self._hub(host).configurations()}
        return bool(fleets - {None, self._settings.prefix})

    def others(self, host: str) -> bool:
        """Whether a hub has devices that aren't the fleet's."""
        condition = manifests.fleet_condition(self._settings.prefix)
        every = "SELECT COUNT() AS n FROM devices"
        return self._count(host, every) > self._count(host, f"{every} WHERE {condition}")

    def _there(self, host: str) -> set[str]:
        """Names of our bases in a hub."""
        prefix = self._settings.prefix
        found = self._hub(host).configurations()
        return {one["id"] for one in found if manifests.is_base(one, prefix)}

    def _count(self, host: str, query: str) -> int:
        return sum(int(row["n"]) for row in self._hub(host).query(query))

    def _hub(self, host: str) -> Hub:
        return Hub(self._clients, host)
