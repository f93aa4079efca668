"""What gateways received for devices, in the fleet's OCI registry as devices write it themselves.

Devices of a gateway are no nodes, so no cluster knows them. Whoever writes for one notes its name
before: as a tag of the repository ``REPOSITORY/received``, because registries needn't list
repositories.
"""

from __future__ import annotations

import io
import logging
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, AccessExpiredError
from edgefleet.interfaces.sending import Told
from edgefleet.interfaces.stored_telemetry import hot_messages
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import digest_of, digest_of_file
from edgefleet.protocol.oci import Repository
from edgefleet.protocol.tags import (
    EMPTY_DATA,
    EMPTY_DIGEST,
    MANIFEST,
    device_repository,
    manifest_of,
    tag_of,
)
from edgefleet_kubernetes.oci_errors import asking_registry
from edgefleet_kubernetes.registry import uploads_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from edgefleet.protocol.event import Event
    from edgefleet_kubernetes.oci import RegistryClient
    from edgefleet_kubernetes.settings import KubernetesSettings

NOTED = "received"  # repository of the names, below the fleet's
MAX_IDLE = 1024  # clients that are kept until the next file: a token each, of some KB

_log = logging.getLogger(__name__)


class Received:
    """Files of devices that a gateway writes.

    Safe to share between threads: each writes with a client of its own.

    Args:
        repository: the fleet's.
        settings: who we are there.
        base: folder that relative paths in the settings start from.
        make: gives a client of a repository.
    """

    def __init__(
        self,
        repository: Repository,
        settings: KubernetesSettings,
        base: Path,
        make: Callable[[Repository], RegistryClient],
    ) -> None:
        self._repository, self._settings, self._base = repository, settings, base
        self._names = f"{repository.name}/{NOTED}"
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[tuple[str, RegistryClient]] = []
        self._noted: set[str] = set()

    def close(self) -> None:
        """Close connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, client in idle:
            client.close()

    @property
    def repository(self) -> Repository:
        """Where names are noted, and so must be written before anything is kept."""
        return Repository(self._repository.host, self._names)

    def prove(self) -> None:
        """Raise what keeping something would, and leave nothing there."""
        with self._client(self._names) as client:
            uploads_of(client, self._settings, self._base).prove()

    def devices(self) -> Iterator[str]:
        """Names of the devices that anything was received of."""
        with self._client(self._names) as client:
            try:
                with asking_registry():
                    yield from client.tags()
            except (AccessDeniedError, AccessExpiredError) as refused:
                # Many registries say so of a repository that nobody has made.
                _log.debug("no names of received devices: %s", refused.message)

    @asking_registry()
    def keep_file(self, device: str, path: str, file: Path) -> None:
        """Keep a file; nothing is sent where one has its name already."""
        digest, size = digest_of_file(file)
        self._keep(
            device,
            path,
            Descriptor(media_type="", digest=digest, size=size),
            lambda: file.open("rb"),
        )

    @asking_registry()
    def keep_hot(self, device: str, events: Sequence[Event]) -> None:
        """Keep hot events in files by the day, as listings of them are read."""
        for message in hot_messages(events):
            today = datetime.now(UTC).date().isoformat()
            path = f"hot/{today}/{time.time_ns():016x}-{uuid.uuid4().hex[:8]}.json"
            found = Descriptor(media_type="", digest=digest_of(message), size=len(message))
            self._keep(device, path, found, partial(io.BytesIO, message))

    def _keep(
        self, device: str, path: str, content: Descriptor, source: Callable[[], BinaryIO]
    ) -> None:
        name, tag = device_repository(self._repository.name, device), tag_of(path)
        self._note(device)
        with self._client(name) as client:
            if client.manifest(tag, head=True) is not None:
                return
            self._put(client, tag, path, content, source)

    def _note(self, device: str) -> None:
        if device in self._noted:
            return
        with self._client(self._names) as client:
            if client.manifest(device, head=True) is None:
                self._put(client, device, device, _EMPTY, lambda: io.BytesIO(EMPTY_DATA))
        self._noted.add(device)

    def _put(
        self,
        client: RegistryClient,
        tag: str,
        title: str,
        content: Descriptor,
        source: Callable[[], BinaryIO],
    ) -> None:
        uploads = uploads_of(client, self._settings, self._base)
        uploads.send(_EMPTY, lambda: io.BytesIO(EMPTY_DATA), Told(None))
        uploads.send(content, source, Told(None))
        client.put_manifest(tag, MANIFEST, manifest_of(title, content.digest, content.size))

    @contextmanager
    def _client(self, name: str) -> Iterator[RegistryClient]:
        """A client of a repository, that nobody else uses meanwhile."""
        with self._lock:
            at = next((n for n, (of, _) in enumerate(self._idle) if of == name), None)
            client = None if at is None else self._idle.pop(at)[1]
        if client is None:
            client = self._make(Repository(self._repository.host, name))
        try:
            yield client
        except BaseException:
            client.close()
            raise
        with self._lock:
            self._idle.append((name, client))
            spare = self._idle.pop(0)[1] if len(self._idle) > MAX_IDLE else None
        if spare is not None:
            spare.close()


_EMPTY = Descriptor(media_type="", digest=EMPTY_DIGEST, size=len(EMPTY_DATA))
