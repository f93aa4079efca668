"""What every service on Azure shares: clients that it closes, what errors mean, proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.abilities import CanProve
from edgefleet_azure.errors import translate
from edgefleet_azure.proofs import prove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.abilities import Proof
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings


class AzureService(CanProve):
    """Base of the services, beside the role's own.

    Attributes:
        needs: parts in `edgefleet_azure.permissions.OPERATOR` that the service needs.
    """

    provider = "azure"
    needs: tuple[str, ...]
    _clients: Clients
    _settings: AzureSettings

    def close(self) -> None:
        self._clients.close()

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, self.needs)
