"""The Kubernetes channel: a pointer from a ConfigMap, reports into another, files into a registry.

Rules kept here:

- The pointer is read from the mounted ConfigMap and, where the pod may, from the API's watch, which
  brings it in a second instead of a minute. Where both have one, the higher counts.
- The report is one ConfigMap a device, written whole by server-side apply: one request. Its name
  ends in the node's, which an admission policy holds against the token.
- Hot events go to the address that the operator named. They are kept beside the segments, too,
  because the operator's side can't read them back from there, or not knowing who sent them; with
  neither place they wait.
- Segments and samples go to the registry or bucket that takes them, with the device's own
  credentials, below its own name.
- Only the standard library is needed, except for MQTT and Google's services.
- What is refused loses nothing: the runtime repeats, and its access says what refused.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self
from urllib.parse import urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    EdgeFleetError,
    UnavailableError,
)
from edgefleet.protocol.names import check_name, check_path
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.kubernetes.api import ApiServer
from edgefleet_runtime.channels.kubernetes.events import sender_for
from edgefleet_runtime.channels.kubernetes.mounted import MountedPointer
from edgefleet_runtime.channels.kubernetes.settings import (
    NODE_VARIABLE,
    OPTIONS,
    POINTER_KEY,
    REPORT_KEY,
    Place,
    Settings,
    read_settings,
)
from edgefleet_runtime.channels.kubernetes.uploads import uploads_for
from edgefleet_runtime.channels.kubernetes.watch import Watch
from edgefleet_runtime.channels.messages import packed
from edgefleet_runtime.channels.watched import WatchedFiles
from edgefleet_runtime.store.bandwidth import open_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.kubernetes.orders import OrderDoor
    from edgefleet_runtime.channels.requests import Reply, Request
    from edgefleet_runtime.store.sources import Source

_log = logging.getLogger(__name__)

MANAGER = "edgefleet-runtime"
"""The field manager of reports."""
INTERVAL_S = 0.25  # between two looks at the files; the kubelet takes a minute
MAX_KEPT = 240 << 10  # bytes of a file of hot events
MAX_REMEMBERED = 8192  # events that are kept beside the segments and not sent yet


class KubernetesChannel(Channel):
    """One node's connection to whoever operates its fleet.

    Args:
        device: the node's name.
        settings: what the DaemonSet's options say.
        api: the cluster's API server.
        interval_s: seconds between two looks at the files.

    Raises:
        ConfigurationError: a file for events can't be used.
        MissingExtraError: an extra is missing for an address.
    """

    options = OPTIONS

    def __init__(
        self, device: str, settings: Settings, api: ApiServer, *, interval_s: float = INTERVAL_S
    ) -> None:
        self._device = check_name("device", device)
        self._settings = settings
        self._api = api
        watched = [settings.pointer]
        if settings.registry_credentials is not None:
            watched.append(settings.registry_credentials)
        self._files = WatchedFiles(*watched, interval_s=interval_s)
        self._mounted = MountedPointer(settings.pointer)
        self._sender = sender_for(settings, device)
        if self._sender is not None:
            self.hot_max_bytes = self._sender.max_bytes
            self.hot_unit_bytes = self._sender.unit_bytes
        self._uploads = uploads_for(settings, device)
        self._refusals: dict[str, str] = {}
        self._kept: set[str] = set()
        self._orders: OrderDoor | None = None
        self._watch = None
        if settings.watch is not None:
            self._watch = Watch(api, settings.watch, changed=self._files.wake)
            self._watch.start()

    @classmethod
    def own_device(cls) -> str | None:
        """The node that this pod is on."""
        return os.environ.get(NODE_VARIABLE) or None

    @classmethod
    def from_options(cls, options: Mapping[str, str], *, device: str) -> Self:
        settings = read_settings(options)
        own = cls.own_device()
        if own is not None and own != device:
            raise ConfigurationError(
                f"the device is called {device!r}, and its node {own!r}",
                cure="start the runtime without --device",
            )
        return cls(device, settings, ApiServer.from_environment(settings.token))

    # -- coming

    def pointer(self) -> bytes | None:
        self._files.mark(self._settings.pointer)
        watched = self._watched()
        try:
            mounted = self._mounted.read()
        except UnavailableError:
            if watched is None:
                raise
            mounted = None
        return higher(mounted, watched)

    def _watched(self) -> bytes | None:
        found = None if self._watch is None else self._watch.object
        data = None if found is None else found.get("data")
        text = data.get(POINTER_KEY) if isinstance(data, dict) else None
        return text.encode() if isinstance(text, str) and text else None

    def access(self) -> AccessReport:
        """Whether there are credentials to read models with; the detail says what else is refused.

        Whether the registry takes them is known when it is asked: what it said is the reconciler's.
        """
        path = self._settings.registry_credentials
        if path is not None:
            self._files.mark(path)
            if not os.access(path, os.R_OK):
                return AccessReport(state="denied", detail=f"no registry credentials at {path}")
        return AccessReport(state="ok", detail="; ".join(tuple(self._refusals.values())) or None)

    def wait(self, timeout_s: float) -> bool:
        return self._files.wait(timeout_s)

    def wake(self) -> None:
        self._files.wake()

    # -- going

    def send_report(self, report: bytes) -> None:
        namespace, prefix = self._settings.reports.namespace, self._settings.reports.name
        place = Place(namespace, f"{prefix}-report-{self._device}")
        labels = {
            "app.kubernetes.io/managed-by": "edgefleet",
            "edgefleet.dev/fleet": prefix,
            "edgefleet.dev/part": "report",
        }
        content = {"metadata": {"labels": labels}, "data": {REPORT_KEY: report.decode()}}
        with self._noting("reports"):
            self._api.apply(place, content, manager=MANAGER)

    def send_hot(self, events: Sequence[Event]) -> None:
        if self._sender is None and self._uploads is None:
            raise UnavailableError(
                "no address for events and none for segments: events wait",
                cure="give the option events, or segments",
            )
        with self._noting("events"):
            if self._uploads is not None:
                if len(self._kept) > MAX_REMEMBERED:  # what was dropped since is in it for ever
                    self._kept.clear()
                self._keep([event for event in events if event.id not in self._kept])
            if self._sender is not None:
                self._sender.send(events)
        self._kept.difference_update(event.id for event in events)

    def _keep(self, events: Sequence[Event]) -> None:
        """Put events beside the segments; they may come again while the address is away."""
        try:
            for name, message in _files_of(events):
                with tempfile.NamedTemporaryFile(prefix="edgefleet-hot-") as file:
                    file.write(message)
                    file.flush()
                    self._put(name, Path(file.name))
        except EdgeFleetError:
            raise
        except OSError as error:
            raise UnavailableError(
                f"hot events can't be kept: {error.strerror or error}",
                cure="let the runtime write to /tmp: mount an emptyDir there",
            ) from error
        self._kept.update(event.id for event in events)

    def upload(self, name: str, path: Path) -> None:
        below = check_path(name, what="segment name")
        with self._noting("segments"):
            self._put(below, path, self.opened)

    def _put(self, name: str, path: Path, opened: Callable[[Path], BinaryIO] = open_plain) -> None:
        if self._uploads is None:
            raise UnavailableError(
                "no address for segments: they wait", cure="give the option segments"
            )
        self._uploads.put(name, path, opened)

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Remember what is refused to this device, for its access, until it isn't any more."""
        try:
            yield
        except AccessDeniedError as error:
            if what not in self._refusals:
                _log.warning("%s are refused: %s", what, error)
            self._refusals[what] = f"{what}: {error.message}"
            raise
        self._refusals.pop(what, None)

    def addresses(self) -> tuple[str, ...]:
        return tuple(folder.as_uri() for folder in self._settings.models)

    def source(self, address: str) -> Source | None:
        credentials = self._settings.registry_credentials
        if credentials is None or urlsplit(address).scheme != "oci":
            return None
        from edgefleet_runtime.store.oci import OciSource  # noqa: PLC0415 - TLS is slow to load

        return OciSource(address, credentials=credentials)

    def serve(self, ask: Callable[[Request], Reply]) -> None:
        settings = self._settings
        if settings.orders is not None and settings.orders_token is not None:
            from edgefleet_runtime.channels.kubernetes.orders import (  # noqa: PLC0415 - where heard
                OrderDoor,
            )

            self._orders = OrderDoor(settings.orders, settings.orders_token, ask)

    def close(self) -> None:
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        if self._watch is not None:
            self._watch.stop()
        self.wake()


def higher(mounted: bytes | None, watched: bytes | None) -> bytes | None:
    """The higher of two pointers; of two fleets' the watched one, which the server has now."""
    if mounted is None or watched is None or mounted == watched:
        return watched if mounted is None else mounted
    try:
        here = read_pointer(mounted)
    except EdgeFleetError:
        return watched
    try:
        there = read_pointer(watched)
    except EdgeFleetError:
        return mounted
    return mounted if here.fleet == there.fleet and here.pair > there.pair else watched


def _files_of(events: Sequence[Event]) -> Iterator[tuple[str, bytes]]:
    """Names below the device's prefix, and what is in them."""
    for message in packed(events, MAX_KEPT):
        today = datetime.now(UTC).date().isoformat()
        yield f"hot/{today}/{time.time_ns():016x}-{uuid.uuid4().hex[:8]}.json", message
