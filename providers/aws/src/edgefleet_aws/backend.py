"""What everything that speaks to AWS shares: clients that it closes, what errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.service import RemoteService
from edgefleet_aws.errors import translate

if TYPE_CHECKING:
    from edgefleet.errors import EdgeFleetError
    from edgefleet_aws.clients import Clients


class AwsBackend(RemoteService):
    """Base of whatever speaks to AWS."""

    provider = "aws"
    _clients: Clients

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)
