"""What every service on Azure shares, beside what `AzureBackend` gives: proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.abilities import CanProve
from edgefleet_azure.backend import AzureBackend
from edgefleet_azure.proofs import prove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.abilities import Proof
    from edgefleet_azure.settings import AzureSettings


class AzureService(AzureBackend, CanProve):
    """Base of the services, before the role's own.

    Attributes:
        needs: parts in `edgefleet_azure.permissions.OPERATOR` that the service needs.
    """

    needs: tuple[str, ...]
    _settings: AzureSettings

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, self.needs)
