"""Telemetry: segments and hot events in S3, below each device's own prefix.

A device's name is the key's: its keys and its topic let it write below its own name only. What a
device says in an event is attributed to that name. What a gateway received lies there likewise.
"""

from __future__ import annotations

import base64
import hashlib
import io
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from edgefleet.interfaces.stored_telemetry import (
    MAX_HOT_MESSAGE,
    ReceivingTelemetry,
    hot_events,
)
from edgefleet_aws.errors import code_of
from edgefleet_aws.names import Names
from edgefleet_aws.proofs import prove
from edgefleet_aws.reading import ObjectStream
from edgefleet_aws.service import AwsService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from edgefleet.interfaces.abilities import Proof
    from edgefleet.protocol.event import Event
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings


class S3Telemetry(AwsService, ReceivingTelemetry):
    """Events of a fleet's devices.

    Args:
        clients: to reach S3 with; closed with the telemetry.
        settings: bucket and prefix.
    """

    needs = ("telemetry",)

    def __init__(self, clients: Clients, settings: AwsSettings) -> None:
        self._clients = clients
        self._settings = settings
        self._bucket = settings.bucket
        self._names = Names(settings)

    def _receiving_proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, ("receiving",))

    def _open_file(self, device: str, path: str) -> BinaryIO:
        key = f"{self._names.devices_folder(device)}{path}"
        at: dict[str, object] = {"Bucket": self._bucket, "Key": key}
        return io.BufferedReader(ObjectStream(self._clients.s3, at, 0))

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        for name in self._devices() if device is None else (device,):
            for item in self._items(name, "hot/"):
                if since is not None and item["LastModified"] < since:
                    continue
                key = item["Key"]
                try:
                    found = self._clients.s3.get_object(Bucket=self._bucket, Key=key)
                except Exception as error:
                    if code_of(error) == "NoSuchKey":
                        continue  # a lifecycle rule has deleted it meanwhile
                    raise
                with found["Body"] as stream:
                    data = stream.read(MAX_HOT_MESSAGE)
                for event in hot_events(data, key):
                    yield name, event

    def _create(self, device: str, path: str, source: Callable[[], BinaryIO], size: int) -> None:
        with source() as stream:
            checksum = hashlib.file_digest(cast("io.BufferedIOBase", stream), "sha256").digest()
            stream.seek(0)
            try:
                self._clients.s3.put_object(
                    Bucket=self._bucket,
                    Key=f"{self._names.devices_folder(device)}{path}",
                    Body=stream,
                    ContentLength=size,
                    IfNoneMatch="*",
                    ChecksumSHA256=base64.b64encode(checksum).decode(),
                )
            except Exception as error:
                if code_of(error) != "PreconditionFailed":  # else it is there already
                    raise

    def _folders(self) -> Iterator[str]:
        start = self._names.devices_folder()
        pages = self._clients.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=start, Delimiter="/"):
            for found in page.get("CommonPrefixes", ()):
                yield str(found["Prefix"])[len(start) : -1]

    def _paths(self, device: str, start: str) -> Iterator[str]:
        folder = self._names.devices_folder(device)
        for item in self._items(device, start):
            yield str(item["Key"]).removeprefix(folder)

    def _items(self, device: str, start: str) -> Iterator[dict[str, Any]]:
        """Objects below a device's folder that begin so, as S3 lists them."""
        prefix = f"{self._names.devices_folder(device)}{start}"
        pages = self._clients.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
            yield from page.get("Contents", ())
