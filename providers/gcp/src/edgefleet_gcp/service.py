"""What every service on Google Cloud shares, beside what `GcpBackend` gives: proofs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.abilities import CanProve
from edgefleet_gcp.backend import GcpBackend
from edgefleet_gcp.proofs import prove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.abilities import Proof
    from edgefleet_gcp.settings import GcpSettings


class GcpService(GcpBackend, CanProve):
    """Base of the services, before the role's own.

    Attributes:
        needs: parts in `edgefleet_gcp.permissions.OPERATOR` that the service needs.
    """

    needs: tuple[str, ...]
    _settings: GcpSettings

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, self.needs)
