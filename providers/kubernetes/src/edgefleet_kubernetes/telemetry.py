"""Telemetry: segments and kept hot events in a repository a device, of the fleet's OCI registry.

Rules kept here:

- A device's name is its repository's, ``REPOSITORY/devices/NODE``: its credentials push there only,
  as far as whoever gave them made them so. What it says of itself isn't believed.
- Which devices there are is told by the clusters, nodes that are in the fleet and reports of those
  that were, and by gateways: registries needn't list repositories.
- A tag says what a file is (`edgefleet.protocol.tags`), so a listing is enough to choose from. What
  a tag leads to is held against its digest.
- Hot events are read from where devices keep them beside their segments. What they sent to the
  profile's own address is that receiver's, and can't be asked back; events at Pub/Sub are read by
  the provider of Google Cloud.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from edgefleet.errors import NotFoundError, ProfileError
from edgefleet.interfaces.abilities import CanProve
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.interfaces.stored_telemetry import MAX_HOT_MESSAGE, StoredTelemetry, hot_events
from edgefleet.interfaces.telemetry import CLOCK_SLACK
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.layout import checked_chunks
from edgefleet.protocol.oci import Repository, read_repository
from edgefleet.protocol.tags import content_of, device_repository, path_of, tag_of
from edgefleet_kubernetes.blobs import BlobReader
from edgefleet_kubernetes.clusters import Clusters
from edgefleet_kubernetes.names import FLEET, PART, report_name
from edgefleet_kubernetes.oci import RegistryClient, connections
from edgefleet_kubernetes.oci_access import find_credentials
from edgefleet_kubernetes.oci_errors import RegistryRefusal, asking_registry
from edgefleet_kubernetes.proofs import prove, tried
from edgefleet_kubernetes.received import Received
from edgefleet_kubernetes.service import KubernetesService

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path
    from typing import Any

    from edgefleet.interfaces.abilities import Proof
    from edgefleet.protocol.event import Event
    from edgefleet.protocol.oci import Credentials
    from edgefleet_kubernetes.clients import Clients
    from edgefleet_kubernetes.settings import KubernetesSettings

MAX_CLIENTS = 4096  # repositories that what to show is kept for: a token each, of some KB
MAX_REMEMBERED = 4096  # files of hot events that following needn't read again
_IN_MEMORY = 8 << 20  # bytes of a segment; a larger one goes through a temporary file


class _Cluster(Protocol):
    def list(
        self, kind: str, namespace: str | None = None, *, labels: dict[str, str]
    ) -> Iterator[dict[str, Any]]: ...


class KubernetesTelemetry(KubernetesService, CanProve, CanReceive, StoredTelemetry):
    """Events of a fleet's devices.

    Args:
        clients: to reach clusters with; closed with the telemetry.
        settings: registry, prefix, namespaces.
        base: folder that relative paths in the settings start from.
        clusters: that know the devices; None for those of the settings.

    Raises:
        ProfileError: the settings name no repository that segments go to.
    """

    def __init__(
        self,
        clients: Clients,
        settings: KubernetesSettings,
        *,
        base: Path,
        clusters: Iterable[_Cluster] | None = None,
    ) -> None:
        self._clients = clients
        self._settings = settings
        self._base = base
        self._repository = _repository(settings)
        self._http = connections(settings.timeout_s)  # to one registry, whichever the device
        self._received = Received(self._repository, settings, base, self._made)
        self._clusters = Clusters(clients) if clusters is None else clusters
        self._open: OrderedDict[str, RegistryClient] = OrderedDict()
        self._remembered: OrderedDict[tuple[str, str], tuple[Event, ...]] = OrderedDict()

    def close(self) -> None:
        self._open.clear()
        self._received.close()
        self._http.close()
        super().close()

    def _proofs(self) -> Iterator[Proof]:
        for cluster in Clusters(self._clients):
            yield from prove(cluster, self._settings, ("telemetry",))

    def _receiving_proofs(self) -> Iterator[Proof]:
        received = self._received
        yield tried("receiving", f"push at {received.repository}", received.prove)

    def _folders(self) -> Iterator[str]:
        ours = {FLEET: self._settings.prefix}
        start = report_name(self._settings.prefix, "")
        found = set(self._received.devices())
        for cluster in self._clusters:
            nodes = cluster.list("Node", labels=ours)
            found.update(node["metadata"]["name"] for node in nodes)
            reports = cluster.list(
                "ConfigMap", self._settings.reports_namespace, labels={**ours, PART: "report"}
            )
            names = (report["metadata"]["name"] for report in reports)
            found.update(name.removeprefix(start) for name in names if name.startswith(start))
        yield from sorted(found)

    def _paths(self, device: str, start: str) -> Iterator[str]:
        with asking_registry():
            for tag in self._client(device).tags():
                path = path_of(tag)
                if path is not None and path.startswith(start):
                    yield path

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        oldest = "" if since is None else f"hot/{(since - CLOCK_SLACK).date().isoformat()}"
        for name in self._devices() if device is None else (device,):
            for path in self._paths(name, "hot/"):
                if path >= oldest:
                    for event in self._kept(name, path):
                        yield name, event

    def _kept(self, device: str, path: str) -> tuple[Event, ...]:
        """The events of a file, which never changes."""
        key = (device, path)
        if key not in self._remembered:
            try:
                with self._open_file(device, path) as stream:
                    data = stream.read(MAX_HOT_MESSAGE)
            except NotFoundError:
                return ()  # the registry's retention has taken it away meanwhile
            self._remembered[key] = tuple(hot_events(data, f"{path} of {device}"))
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return self._remembered[key]

    @asking_registry()
    def _open_file(self, device: str, path: str) -> BinaryIO:
        client, where = self._client(device), f"{path} of {device}"
        found = client.manifest(tag_of(path))
        if found is None:  # not there yet, or taken away by the registry's retention
            raise NotFoundError(f"{where} isn't there", cure="repeat the call later")
        digest, size = content_of(found.data)
        expected = Descriptor(media_type="", digest=digest, size=size)
        whole = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - given to the caller
        try:
            with BlobReader(client, digest, 0) as stream:
                for chunk in checked_chunks(cast("BinaryIO", stream), expected):
                    whole.write(chunk)
        except RegistryRefusal as refusal:
            whole.close()
            if refusal.status == 404:
                raise NotFoundError(f"{where} is gone", cure="repeat the query") from refusal
            raise
        except BaseException:
            whole.close()
            raise
        whole.seek(0)
        return cast("BinaryIO", whole)

    def _client(self, device: str) -> RegistryClient:
        """A client of a device's repository; the ones used last are kept."""
        client = self._open.pop(device, None)
        if client is None:
            if len(self._open) >= MAX_CLIENTS:
                self._open.popitem(last=False)
            of_all = self._repository
            name = device_repository(of_all.name, device)
            client = self._made(Repository(of_all.host, name))
        self._open[device] = client
        return client

    def _receive_file(self, device: str, path: str, file: Path) -> None:
        self._received.keep_file(device, path, file)

    def _receive_hot(self, device: str, events: Sequence[Event]) -> None:
        self._received.keep_hot(device, events)

    def _made(self, repository: Repository) -> RegistryClient:
        settings = self._settings
        named = settings.registry_credentials

        def find() -> Credentials | None:
            return find_credentials(repository, None if named is None else self._base / named)

        return RegistryClient(
            repository,
            find,
            attempts=settings.max_attempts,
            timeout_s=settings.timeout_s,
            http=self._http,
        )


def _repository(settings: KubernetesSettings) -> Repository:
    address = settings.segments or ""
    if not address.startswith("oci://"):
        raise ProfileError(
            "telemetry needs a registry that devices write their segments to",
            cure="set `segments` to oci://HOST/REPOSITORY; those in Cloud Storage are read by "
            "the provider gcp",
        )
    return read_repository(address)
