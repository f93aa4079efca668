"""An Event Hubs-compatible endpoint to test with, and who may read it."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme
from azure.core.credentials import AzureNamedKeyCredential

from edgefleet_azure.cloud.eventhubs import EventHubs
from edgefleet_azure.cloud.shared_keys import key_check
from edgefleet_azure.events import EventSource

if TYPE_CHECKING:
    from collections.abc import Iterator

HUB = "hub-of-tests"
KEY = "bm90LWEtc2VjcmV0"


@contextmanager
def listening(folder: Path, **options: Any) -> Iterator[EventHubs]:
    """An endpoint; its authority's certificate lies in ``folder/ca.pem``."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    admits = key_check({"service": KEY})
    with EventHubs(HUB, tls=context, **{"admits": admits, "partitions": 2, **options}) as hubs:
        yield hubs


def source_of(hubs: EventHubs, *, key: str = KEY, name: str = HUB) -> EventSource:
    """How it is reached."""
    credential = AzureNamedKeyCredential("service", key)
    return EventSource(f"localhost:{hubs.port}", name, credential)
