"""What every service on Google Cloud shares: clients that it closes, what errors mean, proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.abilities import CanProve
from edgefleet_gcp.errors import translate
from edgefleet_gcp.proofs import prove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.abilities import Proof
    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.settings import GcpSettings


class GcpService(CanProve):
    """Base of the services, beside the role's own.

    Attributes:
        needs: parts in `edgefleet_gcp.permissions.OPERATOR` that the service needs.
    """

    provider = "gcp"
    needs: tuple[str, ...]
    _clients: Clients
    _settings: GcpSettings

    def close(self) -> None:
        self._clients.close()

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, self.needs)
