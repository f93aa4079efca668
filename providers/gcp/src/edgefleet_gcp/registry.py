"""The registry: bytes and records in Cloud Storage.

Google's own model registry, Vertex AI's, keeps no bundles and knows no devices: what to do where it
is wanted is in docs/how-to/google-cloud.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.interfaces.document_registry import DocumentRegistry
from edgefleet_gcp.blobs import GcsBlobStore
from edgefleet_gcp.service import GcpService
from edgefleet_gcp.state import GcsStateStore

if TYPE_CHECKING:
    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.settings import GcpSettings


class GcsRegistry(GcpService, DocumentRegistry):
    """Model versions in Cloud Storage.

    Args:
        clients: to reach Cloud Storage with; closed with the registry.
        settings: bucket and prefix.
        base: folder that the settings' ``cache`` starts from.
    """

    needs = ("registry",)

    def __init__(self, clients: Clients, settings: GcpSettings, *, base: Path = Path()) -> None:
        super().__init__(
            GcsBlobStore(clients, settings, base=base),
            GcsStateStore(clients, settings),
            provider="gcp",
        )
        self._clients = clients
        self._settings = settings
