"""The registry: bytes in an OCI registry, records in the profile's state store, tags beside them.

Rules kept here (docs/adr/0025):

- An OCI registry has no compare-and-swap. Numbers, aliases, approvals and labels are documents of
  the state store; what a tag says is never believed in their place.
- Version ``NAME:VERSION`` is shown by the tag ``NAME-VVERSION``, which names the bundle's index and
  keeps the registry from deleting what it holds. A tag that is there and holds another bundle is
  never moved: its number counts as taken.
- The record itself is shown by a manifest that refers to the index, for people and other tools.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet.errors import AlreadyExistsError, ConflictError
from edgefleet.interfaces.abilities import CanProve
from edgefleet.interfaces.document_registry import DocumentRegistry
from edgefleet.interfaces.shown_registry import ShownRegistry
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.oci import read_repository
from edgefleet_kubernetes.blobs import RECORD_TYPE, OciBlobStore
from edgefleet_kubernetes.oci import RegistryClient
from edgefleet_kubernetes.oci_access import find_credentials
from edgefleet_kubernetes.oci_errors import RegistryRefusal, translate
from edgefleet_kubernetes.oci_referrers import Referrers
from edgefleet_kubernetes.oci_upload import Uploads
from edgefleet_kubernetes.proofs import tried

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.abilities import Proof
    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.values import Approval, ModelVersion
    from edgefleet.protocol.oci import Credentials
    from edgefleet_kubernetes.oci import Manifest
    from edgefleet_kubernetes.settings import KubernetesSettings

MIB = 1 << 20
_BETWEEN = "-V"  # in no name and no version: they have no capitals
REFERENCE = "dev.edgefleet.reference"
# Answers of registries that take images alone.
_NO_ARTIFACTS = frozenset({400, 405, 415, 422})

_log = logging.getLogger(__name__)


class KubernetesRegistry(CanProve, ShownRegistry):
    """Model versions in an OCI registry and the profile's state store.

    Args:
        settings: the repository, and who we are there.
        state: gives the profile's state store.
        base: folder that relative paths in the settings start from.
        client: of the repository; None to make one by the settings.

    Raises:
        ProfileError: the settings name no repository.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        *,
        state: Callable[[], StateStore],
        base: Path,
        client: RegistryClient | None = None,
    ) -> None:
        self._client = client or client_of(settings, base)
        uploads = uploads_of(self._client, settings, base)
        blobs = OciBlobStore(self._client, uploads, mirrors=settings.mirrors)
        super().__init__(blobs, state(), provider="kubernetes")
        self._store, self._uploads = blobs, uploads
        self._referrers = Referrers(self._client)

    def close(self) -> None:
        self._client.close()

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _proofs(self) -> Iterator[Proof]:
        at = self._client.repository
        yield tried("registry", f"pull at {at}", lambda: next(iter(self._client.tags()), None))
        yield tried("registry", f"push at {at}", self._uploads.prove)

    # Records, which are all that is believed

    def _create(self, record: ModelVersion) -> None:
        there = self._shown_of(record)
        if there is not None and there.digest != record.digest and self._get_own(record) is None:
            raise AlreadyExistsError(
                f"the tag {tag_of(record)} of {self._client.repository} holds another bundle",
                cure="push under another version; a repository is best one fleet's alone",
            )
        super()._create(record)

    def _get_own(self, record: ModelVersion) -> ModelVersion | None:
        return DocumentRegistry._get(self, record.name, record.version)  # noqa: SLF001 - its base

    def _get(self, name: str, version: str) -> ModelVersion | None:
        """The record: nobody decides anything in an OCI registry, so it isn't asked."""
        return DocumentRegistry._get(self, name, version)  # noqa: SLF001 - its base

    def _versions(self, name: str) -> Iterator[ModelVersion]:
        return DocumentRegistry._versions(self, name)  # noqa: SLF001 - its base

    def _taken(self, name: str) -> Iterator[str]:
        yield from super()._taken(name)
        yield from self._shown(name)

    # Tags, which show them

    def _shown(self, name: str) -> dict[str, str]:
        begins = f"{name}{_BETWEEN}"
        tags = self._client.tags()
        return {tag.removeprefix(begins): tag for tag in tags if tag.startswith(begins)}

    def _shown_of(self, record: ModelVersion) -> Manifest | None:
        return self._client.manifest(tag_of(record), head=True)

    def _decided(self, record: ModelVersion, shown: Manifest) -> Approval | None:
        return None

    def _show(self, record: ModelVersion) -> None:
        tag, there = tag_of(record), self._shown_of(record)
        if there is None:
            self._client.put_manifest(tag, b.INDEX_MEDIA_TYPE, self._store.index(record.digest))
            there = self._shown_of(record)
        if there is None or there.digest != record.digest:
            raise self._overtaken(record)
        index = b.Descriptor(media_type=b.INDEX_MEDIA_TYPE, digest=record.digest, size=there.size)
        try:
            self._refer(index, record)
        except RegistryRefusal as refusal:
            if refusal.status not in _NO_ARTIFACTS:
                raise
            _log.warning("the record of %s isn't shown in the registry: %s", record, refusal)

    def _refer(self, index: b.Descriptor, record: ModelVersion) -> None:
        """Have a manifest with the record refer to the bundle's index."""
        told = record.model_dump_json(exclude={"aliases"}).encode()
        held = self._store.put_bytes(told, RECORD_TYPE)
        self._referrers.replace(
            index,
            RECORD_TYPE,
            {REFERENCE: record.reference},
            lambda notes: self._store.attach(
                None, held, kind=RECORD_TYPE, subject=index, annotations=notes
            ),
        )

    def _overtaken(self, record: ModelVersion) -> ConflictError:
        """Have another tag hold a bundle whose own somebody took; tells of it."""
        tag = f"blob-{hex_of(record.digest)}"
        self._client.put_manifest(tag, b.INDEX_MEDIA_TYPE, self._store.index(record.digest))
        return ConflictError(
            f"{record} is recorded, but somebody else holds the tag {tag_of(record)} of "
            f"{self._client.repository}; the tag {tag} holds the bundle",
            cure="give each fleet a repository of its own",
        )

    def _hide(self, record: ModelVersion) -> None:
        there = self._shown_of(record)
        if there is not None and there.digest == record.digest:
            self._client.delete(tag_of(record))


def tag_of(record: ModelVersion) -> str:
    """The tag that shows a version, at most the 128 characters that a tag may have."""
    return f"{record.name}{_BETWEEN}{record.version}"


def client_of(settings: KubernetesSettings, base: Path, *, below: str = "") -> RegistryClient:
    """A client of the repository that the settings name.

    Args:
        settings: the repository, and who we are there.
        base: folder that relative paths in the settings start from.
        below: name of a repository below that one; empty for that one.

    Raises:
        ProfileError: they name none.
    """
    named = settings.needed("registry", "the registry")
    repository = read_repository(f"{named}/{below}" if below else named)
    kept = settings.registry_credentials

    def find() -> Credentials | None:
        return find_credentials(repository, None if kept is None else base / kept)

    return RegistryClient(
        repository, find, attempts=settings.max_attempts, timeout_s=settings.timeout_s
    )


def uploads_of(client: RegistryClient, settings: KubernetesSettings, base: Path) -> Uploads:
    """What sends blobs to a client's repository, by the settings."""
    return Uploads(
        client,
        base / settings.cache / "uploads",
        chunk_bytes=settings.chunk_mib * MIB,
        mounts=settings.mount_from,
    )
