"""What everything that speaks to Azure shares: clients that it closes, what errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.service import RemoteService
from edgefleet_azure.errors import translate

if TYPE_CHECKING:
    from edgefleet.errors import EdgeFleetError
    from edgefleet_azure.clients import Clients


class AzureBackend(RemoteService):
    """Base of whatever speaks to Azure."""

    provider = "azure"
    _clients: Clients

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)
