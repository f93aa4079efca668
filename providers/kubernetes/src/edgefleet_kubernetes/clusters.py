"""The clusters of a fleet, in the order of the profile's contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_kubernetes.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_kubernetes.clients import Clients


class Clusters:
    """The clusters of a fleet; connects to none before it is asked for.

    Args:
        clients: to reach them with.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._made: dict[str, Cluster] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Their contexts."""
        return self._clients.contexts

    def __iter__(self) -> Iterator[Cluster]:
        for context in self.names:
            if context not in self._made:
                self._made[context] = Cluster(self._clients, context)
            yield self._made[context]

    def __len__(self) -> int:
        return len(self.names)
