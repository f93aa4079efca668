"""Telemetry: segments in Blob storage, hot events from each hub's Event Hubs-compatible endpoint.

A segment's device is the folder it lies in: a device's access writes below its own name only. A hot
event's is the one that IoT Hub knew its sender by. Either way it isn't what the device says. Fleets
may share a hub: a fleet's hot events are those of devices whose twins are tagged as its own.

What a gateway received is in Blob storage alone, its hot events below one folder for all devices,
so that one listing finds them: no device has that name, and none may write there.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from azure.storage.blob import ContentSettings

from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.stored_telemetry import (
    MAX_HOT_MESSAGE,
    ReceivingTelemetry,
    hot_events,
)
from edgefleet.protocol.names import check_name
from edgefleet_azure.blobs import BlobStream
from edgefleet_azure.errors import code_of
from edgefleet_azure.events import arrivals, sources
from edgefleet_azure.groups import DeviceGroups
from edgefleet_azure.hubs import Hubs
from edgefleet_azure.manifests import MODULE
from edgefleet_azure.proofs import prove
from edgefleet_azure.service import AzureService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from edgefleet.interfaces.abilities import Proof
    from edgefleet.protocol.event import Event
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings


MEMBERS_S = 600.0  # so long a listing of a fleet's devices is good; IoT Hub lists 100 at once
RECEIVED = ".received"  # folder of hot events that gateways received; devices' names have no dot
STRANGERS_S = 60.0  # so long a device that isn't the fleet's is taken for that


class AzureTelemetry(AzureService, ReceivingTelemetry):
    """Events of a fleet's devices.

    Hot events are kept as long as the hub keeps them, a day unless it is told otherwise; those that
    a gateway received stay.

    Args:
        clients: to reach storage and hubs with; closed with the telemetry.
        settings: storage account, prefix, hubs.
    """

    needs = ("telemetry",)

    def __init__(self, clients: Clients, settings: AzureSettings) -> None:
        self._clients = clients
        self._settings = settings
        self._members = _Members(clients, settings)

    def _receiving_proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, ("receiving",))

    def _open_file(self, device: str, path: str) -> BinaryIO:
        name = quote(f"{device}/{path}", safe="/=")
        url = f"{self._settings.storage_url}/{self._settings.container('devices')}/{name}"
        return io.BufferedReader(BlobStream(self._clients, url, 0))

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        for source in sources(self._clients, self._settings):
            found = arrivals(source, since=since, attempts=self._settings.max_attempts)
            for arrival in found:
                if arrival.module != MODULE or device not in (None, arrival.device):
                    continue
                if not self._members.has(arrival.device):
                    continue
                for event in hot_events(arrival.body, f"a message of {arrival.device}"):
                    yield arrival.device, event
        yield from self._received(device, since)

    def _received(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        container = self._clients.container("devices")
        start = f"{RECEIVED}/" if device is None else f"{RECEIVED}/{device}/"
        for found in container.list_blobs(name_starts_with=start):
            whose = found.name.split("/")[1]
            if since is not None and found.last_modified < since:
                continue
            try:
                check_name("device", whose)
                data = container.download_blob(
                    found.name, offset=0, length=MAX_HOT_MESSAGE
                ).readall()
            except InvalidInputError:
                continue  # somebody else's
            except Exception as error:
                if code_of(error) == "BlobNotFound":
                    continue  # a lifecycle rule has deleted it meanwhile
                raise
            for event in hot_events(data, found.name):
                yield whose, event

    def _create(self, device: str, path: str, source: Callable[[], BinaryIO], size: int) -> None:
        hot = path.startswith("hot/")
        name = f"{RECEIVED}/{device}/{path[4:]}" if hot else f"{device}/{path}"
        kind = "application/json" if hot else "application/octet-stream"
        with source() as stream:
            try:
                self._clients.container("devices").upload_blob(
                    name,
                    stream,
                    length=size,
                    overwrite=False,
                    content_settings=ContentSettings(content_type=kind),
                )
            except Exception as error:
                if code_of(error) != "BlobAlreadyExists":
                    raise

    def _folders(self) -> Iterator[str]:
        for found in self._clients.container("devices").walk_blobs(delimiter="/"):
            if found.name.endswith("/") and found.name != f"{RECEIVED}/":
                yield found.name[:-1]

    def _paths(self, device: str, start: str) -> Iterator[str]:
        folder = f"{device}/"
        names = self._clients.container("devices").list_blob_names(
            name_starts_with=f"{folder}{start}"
        )
        for name in names:
            yield str(name).removeprefix(folder)


class _Members:
    """Which devices are the fleet's."""

    def __init__(self, clients: Clients, settings: AzureSettings) -> None:
        self._groups = DeviceGroups(Hubs(clients, settings.hubs), settings.prefix)
        self._listed, self._names = float("-inf"), set[str]()
        self._strangers: dict[str, float] = {}

    def has(self, device: str) -> bool:
        """Whether a device is; one that isn't listed yet is asked for by its name."""
        now = time.monotonic()
        if now - self._listed > MEMBERS_S:
            pages = self._groups.devices(None)
            self._names = {member.device for _, page in pages for member in page}
            self._listed = now
            self._strangers.clear()
        if device in self._names:
            return True
        if now - self._strangers.get(device, float("-inf")) < STRANGERS_S:
            return False
        if self._groups.find(device) is None:
            self._strangers[device] = now
            return False
        self._names.add(device)
        return True
