"""The IoT Edge channel: pointer and access from the module twin, reports back into it.

Rules kept here:

- Pointer, read access and write access are desired properties; see `twin`. Changes are told; the
  twin is read as a whole at the start, when the connection comes back, and every `READ_AGAIN_S`,
  no more often, because IoT Hub bills each reading.
- Reports go into reported properties, hot events out as messages of the output `OUTPUT`, whose
  route has a priority and a time to live. edgeHub keeps both while it is offline.
- Segments and blobs go to and from Blob storage by HTTPS; nothing on the device can renew a
  signature, so one that ended is waited for and reported, and its successor goes on where the last
  one stopped.
- Operators' requests are direct methods.
- The device's name is what edgeAgent says in the environment.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Self

from edgefleet.errors import (
    AccessExpiredError,
    ConfigurationError,
    UnavailableError,
)
from edgefleet.protocol.names import check_name, check_path
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.channels.again import ReadAgain
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.iotedge import blob
from edgefleet_runtime.channels.iotedge.methods import Methods
from edgefleet_runtime.channels.iotedge.module import (
    CONNECTION_VARIABLE,
    DEVICE_VARIABLE,
    Module,
)
from edgefleet_runtime.channels.iotedge.twin import (
    WANTED,
    ReadAccess,
    UploadAccess,
    Wanted,
    changes,
    read_desired,
    reported,
)
from edgefleet_runtime.channels.messages import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.requests import Reply, Request
    from edgefleet_runtime.store.sources import Source

_log = logging.getLogger(__name__)

OUTPUT = "hot"
READ_AGAIN_S = 600.0
# https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-pricing: by 4 KB, properties included
UNIT_BYTES = 4 << 10
MAX_MESSAGE = 255 << 10  # bytes; 256 KB with its properties, of which ours have some 100


class IotEdgeChannel(Channel):
    """One device's connection to Azure through its edgeHub.

    Args:
        device: the device's id at IoT Hub.
        read_again_s: seconds after which the twin is read without being told.
    """

    options = {}  # noqa: RUF012 - a ClassVar in the base
    hot_max_bytes = 256 << 10
    hot_unit_bytes = UNIT_BYTES

    def __init__(self, device: str, *, read_again_s: float = READ_AGAIN_S) -> None:
        self._device = check_name("device", device)
        self._again = ReadAgain(read_again_s)
        self._lock = threading.Lock()
        self._wanted: Wanted | None = None
        self._ended = blob.Ended()
        self._told: dict[str, Any] | None = None
        self._methods = Methods()
        self._module = Module(
            changed=self._again.tell, connected=self._reconnected, asked=self._methods.asked
        )

    @classmethod
    def own_device(cls) -> str | None:
        """The device that edgeAgent says this is."""
        named = os.environ.get(DEVICE_VARIABLE)
        if named:
            return named
        by_hand = os.environ.get(CONNECTION_VARIABLE, "")
        parts = (part.partition("=") for part in by_hand.split(";"))
        return next((value for key, _, value in parts if key == "DeviceId"), None)

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        if options:
            raise ConfigurationError(
                f"channel iotedge: unknown options {sorted(options)}",
                cure="give it none: all comes from edgeAgent and the module twin",
            )
        own = cls.own_device()
        if own is not None and own != device:
            raise ConfigurationError(
                f"the device is called {device!r} and edgeAgent calls it {own!r}",
                cure="start the runtime without --device",
            )
        return cls(device)

    # -- coming

    def pointer(self) -> bytes | None:
        return self._current().pointer.encode() or None

    def access(self) -> AccessReport:
        """Whether blobs can be read; where only segments can't be written, the detail says so."""
        wanted = self._wanted
        read = None if wanted is None else wanted.access
        if wanted is None or read is None:
            return AccessReport(state="unknown", detail="no access came to this device yet")
        if self._ended.knows(read.read, read.expires):
            return AccessReport(state="expired", detail="the signature to read blobs has ended")
        if wanted.upload is None:
            return AccessReport(state="ok", detail="no access to write segments came yet")
        if self._ended.knows(wanted.upload.write, wanted.upload.expires):
            return AccessReport(state="ok", detail="access to write segments has ended")
        return AccessReport(state="ok")

    def wait(self, timeout_s: float) -> bool:
        return self._again.wait(timeout_s)

    def wake(self) -> None:
        self._again.wake()

    def _reconnected(self) -> None:
        """The connection is back: what was told before may not be known on the other side."""
        with self._lock:
            self._told = None
        self._again.tell()

    def _current(self) -> Wanted:
        """What the twin says, read where that is due; while edgeHub is away, what it said last."""
        if self._again.due:
            try:
                with self._again.reading():
                    self._wanted = read_desired(self._module.desired())
            except UnavailableError as error:
                if self._wanted is None:
                    raise
                _log.info("the twin can't be read now: %s", error.message)
        if self._wanted is None:
            raise UnavailableError("the module's twin hasn't been read yet")
        return self._wanted

    def serve(self, ask: Callable[[Request], Reply]) -> None:
        self._methods.serve(ask)

    # -- going

    def send_report(self, report: bytes) -> None:
        after = reported(report)
        with self._lock:
            before, self._told = self._told, None
        patch = changes(before, after)
        if patch:
            self._module.report({WANTED: patch})
        with self._lock:
            self._told = after

    def send_hot(self, events: Sequence[Event]) -> None:
        for payload in packed(events, MAX_MESSAGE):
            if len(payload) > MAX_MESSAGE:  # it would be refused for ever, and all after it wait
                _log.warning("a hot event of %d bytes is dropped: too long", len(payload))
                continue
            self._module.send(payload, OUTPUT)

    def upload(self, name: str, path: Path) -> None:
        below = check_path(name, what="segment name")
        access = self._upload_access()
        blob.put(access, below, path, self._ended, self.opened)

    def _upload_access(self) -> UploadAccess:
        wanted = self._wanted
        if wanted is None or wanted.upload is None:
            raise UnavailableError("no access to write segments came to this device yet")
        if self._ended.knows(wanted.upload.write, wanted.upload.expires):
            raise AccessExpiredError(
                "access to write segments has ended", cure="renew it: edgefleet access renew"
            )
        return wanted.upload

    def source(self, address: str) -> Source | None:
        wanted = self._current()
        access = wanted.access
        if access is None or not blob.meant_for(access, address, wanted.upload):
            return None
        return blob.source(address, self._read_query, self._ended)

    def _read_query(self) -> str:
        """The signature that holds now: a fetch that takes hours outlives one."""
        access: ReadAccess | None = None if self._wanted is None else self._wanted.access
        if access is None or self._ended.knows(access.read, access.expires):
            raise AccessExpiredError("access to the fleet's blobs has ended", cure=blob.RENEW)
        return access.read

    def close(self) -> None:
        self.wake()
        self._methods.close()
        self._module.close()
