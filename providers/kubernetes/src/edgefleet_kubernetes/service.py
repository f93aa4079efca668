"""What services that speak to clusters share: clients that they close, what errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.service import RemoteService
from edgefleet_kubernetes.errors import translate

if TYPE_CHECKING:
    from edgefleet.errors import EdgeFleetError
    from edgefleet_kubernetes.clients import Clients
    from edgefleet_kubernetes.settings import KubernetesSettings


class KubernetesService(RemoteService):
    """Base of the services, before the role's own."""

    provider = "kubernetes"
    _clients: Clients
    _settings: KubernetesSettings

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)
