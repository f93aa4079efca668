"""Telemetry: segments and hot events in Cloud Storage, and hot events that Pub/Sub brings.

Rules kept here:

- A device's name is its folder's, below ``PREFIX/devices/``: a device's access lets it create
  objects below its own name only. What a device says in an event is attributed to that name.
- Pub/Sub doesn't tell who published. Published events count only where the profile trusts their
  senders (``trust_senders``, docs/adr/0027), and lie apart, below ``PREFIX/hot/``.
- What a gateway received lies in its device's folder, too: the gateway writes for it.
- A published event is stored before it is acknowledged: one that is lost on the way comes again.
  Events that came twice are given once, by their ids.
"""

from __future__ import annotations

import io
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from edgefleet.errors import EdgeFleetError
from edgefleet.interfaces.stored_telemetry import ReceivingTelemetry, hot_events, hot_messages
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.names import check_name
from edgefleet_gcp.answers import status_of
from edgefleet_gcp.errors import is_no_object
from edgefleet_gcp.pubsub import DEVICE, Subscription, event_in
from edgefleet_gcp.reading import ObjectStream
from edgefleet_gcp.service import GcpService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from edgefleet.protocol.event import Event
    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.pubsub import Message
    from edgefleet_gcp.settings import GcpSettings

MAX_MESSAGE = 16 << 20  # bytes of one object of hot events
BATCH = 100  # messages that are stored and acknowledged at once, well within their deadline
MOST_BATCHES = 1000  # of one query: who publishes faster than we store doesn't hold it for ever

_log = logging.getLogger(__name__)


class GcsTelemetry(GcpService, ReceivingTelemetry):
    """Events of a fleet's devices.

    Args:
        clients: to reach Cloud Storage and Pub/Sub with; closed with the telemetry.
        settings: bucket, prefix, subscription.
    """

    needs = ("telemetry",)

    def __init__(self, clients: Clients, settings: GcpSettings) -> None:
        self._clients = clients
        self._settings = settings
        self._devices_root = f"{settings.prefix}/devices/"
        self._published_root = f"{settings.prefix}/hot/"

    def _open_file(self, device: str, path: str) -> BinaryIO:
        return self._opened(f"{self._devices_root}{device}/{path}")

    def _opened(self, name: str) -> BinaryIO:
        return io.BufferedReader(ObjectStream(self._clients, name, 0))

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        for name in self._devices() if device is None else (device,):
            yield from self._hot_below(name, f"{self._devices_root}{name}/hot/", since)
        if self._settings.subscription is None or not self._settings.trust_senders:
            return
        self._collect(self._settings.subscription)
        root = self._published_root
        for name in self._named_below(root) if device is None else (device,):
            yield from self._hot_below(name, f"{root}{name}/", since)

    def _hot_below(
        self, device: str, start: str, since: datetime | None
    ) -> Iterator[tuple[str, Event]]:
        found = self._clients.bucket.list_blobs(
            prefix=start,
            fields="items(name,size,timeCreated),nextPageToken",
            retry=self._clients.retries,
        )
        for blob in found:
            if since is not None and blob.time_created < since:
                continue
            try:
                with self._opened(blob.name) as stream:
                    data = stream.read(min(int(blob.size), MAX_MESSAGE))
            except Exception as error:
                if is_no_object(error):
                    continue  # a lifecycle rule has deleted it meanwhile
                raise
            for event in hot_events(data, blob.name):
                yield device, event

    def _collect(self, subscription: str) -> None:
        """Store what was published since, and acknowledge it."""
        source = Subscription(self._clients, subscription)
        for _ in range(MOST_BATCHES):
            messages = source.pull(BATCH)
            if not messages:
                return
            for device, events in _by_device(messages).items():
                self._store(device, events)
            source.acknowledge(messages)

    def _store(self, device: str, events: list[Event]) -> None:
        for body in hot_messages(events):
            name = f"{self._published_root}{device}/{hex_of(digest_of(body))}.json"
            self._make(name, partial(io.BytesIO, body), len(body))

    def _create(self, device: str, path: str, source: Callable[[], BinaryIO], size: int) -> None:
        self._make(f"{self._devices_root}{device}/{path}", source, size)

    def _make(self, name: str, source: Callable[[], BinaryIO], size: int) -> None:
        kind = "application/json" if name.endswith(".json") else "application/octet-stream"
        blob = self._clients.bucket.blob(name)
        with source() as stream:
            try:
                blob.upload_from_file(
                    stream,
                    size=size,
                    content_type=kind,
                    if_generation_match=0,
                    checksum="crc32c",
                    retry=self._clients.retries,
                )
            except Exception as error:
                # Else somebody has stored the same. Who may delete nothing is told 403 of that.
                status = status_of(error)
                if status != 412 and not (status == 403 and self._is_there(blob)):
                    raise

    def _is_there(self, blob: Any) -> bool:  # noqa: ANN401 - google-cloud-storage has no types
        return bool(blob.exists(retry=self._clients.retries))

    def _folders(self) -> Iterator[str]:
        return self._named_below(self._devices_root)

    def _named_below(self, root: str) -> Iterator[str]:
        found = self._clients.bucket.list_blobs(
            prefix=root,
            delimiter="/",
            fields="prefixes,nextPageToken",
            retry=self._clients.retries,
        )
        for page in found.pages:
            for prefix in sorted(page.prefixes):
                yield str(prefix)[len(root) : -1]

    def _paths(self, device: str, start: str) -> Iterator[str]:
        folder = f"{self._devices_root}{device}/"
        found = self._clients.bucket.list_blobs(
            prefix=f"{folder}{start}",
            fields="items(name),nextPageToken",
            retry=self._clients.retries,
        )
        for blob in found:
            yield str(blob.name).removeprefix(folder)


def _by_device(messages: list[Message]) -> dict[str, list[Event]]:
    """Events by device; what is none is left out, because anybody may have sent it."""
    found: dict[str, list[Event]] = {}
    for message in messages:
        try:
            device = check_name("device", message.attributes.get(DEVICE, ""))
            event = event_in(message)
        except EdgeFleetError as error:
            _log.warning("message %s: left out, it is no event: %s", message.id, error.message)
            continue
        found.setdefault(device, []).append(event)
    return found
