"""What everything that speaks to Google Cloud shares: clients that it closes, what errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.service import RemoteService
from edgefleet_gcp.errors import translate

if TYPE_CHECKING:
    from edgefleet.errors import EdgeFleetError
    from edgefleet_gcp.clients import Clients


class GcpBackend(RemoteService):
    """Base of whatever speaks to Google Cloud."""

    provider = "gcp"
    _clients: Clients

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)
