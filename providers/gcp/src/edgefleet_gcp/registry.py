"""The registry: bytes and records in Cloud Storage.

Google's own model registry, Vertex AI's, keeps no bundles and knows no devices: what to do where it
is wanted is in docs/how-to/google-cloud.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.interfaces.abilities import CanProve
from edgefleet.interfaces.document_registry import DocumentRegistry
from edgefleet_gcp.blobs import GcsBlobStore
from edgefleet_gcp.errors import translate
from edgefleet_gcp.proofs import prove
from edgefleet_gcp.state import GcsStateStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.abilities import Proof
    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.settings import GcpSettings


class GcsRegistry(CanProve, DocumentRegistry):
    """Model versions in Cloud Storage.

    Args:
        clients: to reach Cloud Storage with; closed with the registry.
        settings: bucket and prefix.
        base: folder that the settings' ``cache`` starts from.
    """

    def __init__(self, clients: Clients, settings: GcpSettings, *, base: Path = Path()) -> None:
        super().__init__(
            GcsBlobStore(clients, settings, base=base),
            GcsStateStore(clients, settings),
            provider="gcp",
        )
        self._clients = clients
        self._settings = settings

    def close(self) -> None:
        self._clients.close()

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, ("registry",))
