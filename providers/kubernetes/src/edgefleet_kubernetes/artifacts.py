"""Files that travel with training runs: OCI artifacts beside the models, a layer a file.

Layers carry their file's name as ORAS writes it, so any tool that reads artifacts gets them out:
``oras pull HOST/REPOSITORY/training:TAG``. They lie in a repository of their own, so that what
devices may read is models only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import IntegrityError, LimitExceededError, NotFoundError
from edgefleet.interfaces.run_outputs import arriving
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import digest_of, digest_of_file
from edgefleet.protocol.documents import parse
from edgefleet.protocol.files import checked_chunks
from edgefleet_kubernetes import pod_entry
from edgefleet_kubernetes.blobs import EMPTY, EMPTY_MEDIA_TYPE, OciBlobStore
from edgefleet_kubernetes.oci_errors import asking_registry
from edgefleet_kubernetes.registry import client_of, uploads_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgefleet_kubernetes.oci import RegistryClient
    from edgefleet_kubernetes.settings import KubernetesSettings

CODE = "application/vnd.edgefleet.run.code.v1"
REPOSITORY = "training"  # below the one of models
MAX_MANIFEST = 4 << 20  # bytes that registries take, distribution-spec 1.1 "Pushing Manifests"


class _Layers(msgspec.Struct, frozen=True):
    """What is read of a manifest: any tool that writes artifacts may have made it."""

    layers: tuple[b.Descriptor, ...] | None = None


class Artifacts:
    """The files of runs in one repository.

    Args:
        client: of the repository.
        blobs: in it; closed with the artifacts, and the client with them.
    """

    def __init__(self, client: RegistryClient, blobs: OciBlobStore) -> None:
        self._client, self._blobs = client, blobs

    def close(self) -> None:
        """Close connections."""
        self._blobs.close()

    @property
    def address(self) -> str:
        """Of the repository's API, for `pod_entry`."""
        return self._client.url

    @asking_registry()
    def find(self, tag: str) -> str | None:
        """Digest of what has a tag; None for nothing."""
        found = self._client.manifest(tag)
        return None if found is None else digest_of(found.data)

    @asking_registry()
    def send(self, files: Mapping[str, Path | bytes], tag: str, kind: str) -> str:
        """Put files under a tag; gives the manifest's digest.

        Args:
            files: by their name, with slashes.
            tag: of the whole. It appears when all is there.
            kind: media type of what it is.

        Raises:
            LimitExceededError: there are too many.
        """
        layers = [self._layer(title, content) for title, content in sorted(files.items())]
        config = self._blobs.put_bytes(EMPTY, EMPTY_MEDIA_TYPE)
        manifest = {
            "schemaVersion": 2,
            "mediaType": b.MANIFEST_MEDIA_TYPE,
            "artifactType": kind,
            "config": {
                "mediaType": EMPTY_MEDIA_TYPE,
                "digest": config.digest,
                "size": config.size,
            },
            "layers": layers,
        }
        data = json.dumps(manifest, separators=(",", ":")).encode()
        if len(data) > MAX_MANIFEST:
            raise LimitExceededError(
                f"{len(layers)} files are too many for one artifact",
                cure="pack many files into few, or give data in a volume: pvc://CLAIM",
            )
        self._client.put_manifest(tag, b.MANIFEST_MEDIA_TYPE, data)
        return digest_of(data)

    def _layer(self, title: str, content: Path | bytes) -> dict[str, Any]:
        if isinstance(content, bytes):
            descriptor = self._blobs.put_bytes(content, pod_entry.FILE_TYPE)
        else:
            digest, size = digest_of_file(content)
            descriptor = b.Descriptor(media_type=pod_entry.FILE_TYPE, digest=digest, size=size)
            self._blobs.put(descriptor, lambda: content.open("rb"))
        return {
            "mediaType": pod_entry.FILE_TYPE,
            "digest": descriptor.digest,
            "size": descriptor.size,
            "annotations": {pod_entry.TITLE: title},
        }

    @asking_registry()
    def fetch(self, tag: str, folder: Path) -> None:
        """Bring the files under a tag into a folder that doesn't exist yet.

        Raises:
            NotFoundError: nothing has the tag.
            DocumentError: what has it is no manifest.
            IntegrityError: a name reaches outside the folder, or content isn't what it says.
            LimitExceededError: there is too much.
        """
        where = self._client.where(tag)
        found = self._client.manifest(tag)
        if found is None:
            raise NotFoundError(
                f"{where} is gone", cure="outputs are kept until somebody deletes their tag"
            )
        with arriving(folder, where) as fresh:
            for layer in parse(_Layers, found.data, f"manifest of {where}").layers or ():
                title = layer.annotations.get(pod_entry.TITLE)
                if title is None and layer.media_type == EMPTY_MEDIA_TYPE:
                    continue  # a run that left nothing
                path = fresh.place(str(title), layer.size)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with self._blobs.open(layer.digest) as source, path.open("xb") as target:
                        for chunk in checked_chunks(source, layer):
                            target.write(chunk)
                except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                    raise IntegrityError(f"{where} holds {title!r} beside a file of it") from error


def open_artifacts(settings: KubernetesSettings, base: Path) -> Artifacts:
    """The files of a fleet's runs.

    Args:
        settings: that name the registry.
        base: folder that relative paths in the settings start from.
    """
    client = client_of(settings, base, below=REPOSITORY)
    blobs = OciBlobStore(client, uploads_of(client, settings, base), held=True)
    return Artifacts(client, blobs)
