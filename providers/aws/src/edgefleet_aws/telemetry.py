"""Telemetry: segments and hot events in S3, below each device's own prefix.

A device's name is the key's: its keys and its topic let it write below its own name only. What a
device says in an event is attributed to that name.
"""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet.interfaces.abilities import CanProve
from edgefleet.interfaces.telemetry import Telemetry
from edgefleet.protocol.event import read_event
from edgefleet.protocol.names import check_name
from edgefleet.protocol.segment import SegmentName, parse_segment_path
from edgefleet_aws.errors import translate
from edgefleet_aws.names import Names
from edgefleet_aws.proofs import prove
from edgefleet_aws.reading import ObjectStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.abilities import Proof
    from edgefleet.protocol.event import Event
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

_log = logging.getLogger(__name__)

MAX_MESSAGE = 128 << 10  # bytes; longer ones IoT Core didn't carry


class S3Telemetry(CanProve, Telemetry):
    """Events of a fleet's devices.

    Args:
        clients: to reach S3 with; closed with the telemetry.
        settings: bucket and prefix.
    """

    provider = "aws"

    def __init__(self, clients: Clients, settings: AwsSettings) -> None:
        self._clients = clients
        self._settings = settings
        self._bucket = settings.bucket
        self._prefix = settings.prefix
        self._names = Names(settings)

    def close(self) -> None:
        self._clients.close()

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, ("telemetry",))

    def _segments(self) -> Iterator[SegmentName]:
        for device in self._devices():
            for key in self._keys(f"{self._names.devices_folder(device)}segments/"):
                name = parse_segment_path(key.removeprefix(f"{self._prefix}/"))
                if name is not None and name.device == device:
                    yield name

    def _open_segment(self, name: SegmentName) -> BinaryIO:
        at: dict[str, object] = {"Bucket": self._bucket, "Key": f"{self._prefix}/{name.path}"}
        return io.BufferedReader(ObjectStream(self._clients.s3, at, 0))

    def _hot(self, device: str | None) -> Iterator[tuple[str, Event]]:
        for name in self._devices() if device is None else (device,):
            for key in self._keys(f"{self._names.devices_folder(name)}hot/"):
                with self._clients.s3.get_object(Bucket=self._bucket, Key=key)["Body"] as stream:
                    data = stream.read(MAX_MESSAGE)
                for event in _events(key, data):
                    yield name, event

    def _devices(self) -> Iterator[str]:
        """Names of devices that have written anything, in order."""
        start = self._names.devices_folder()
        pages = self._clients.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=start, Delimiter="/"):
            for found in page.get("CommonPrefixes", ()):
                name = str(found["Prefix"])[len(start) : -1]
                try:
                    yield check_name("device", name)
                except InvalidInputError:
                    _log.info("passed over %s: no device has that name", found["Prefix"])

    def _keys(self, start: str) -> Iterator[str]:
        pages = self._clients.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=start):
            for item in page.get("Contents", ()):
                yield str(item["Key"])


def _events(key: str, data: bytes) -> Iterator[Event]:
    """The events of a message; what is none is left out, because any device may have written it."""
    try:
        found = json.loads(data)
        listed = found["events"]
        parts = [msgspec.json.encode(one) for one in listed]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        _log.warning("%s: left out, it is no message of events: %r", key, error)
        return
    for part in parts:
        try:
            yield read_event(part)
        except EdgeFleetError as error:
            _log.warning("%s: left out what is no event: %s", key, error.message)
