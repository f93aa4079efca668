"""Archives of the runtime, stored where devices fetch them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.files import open_plain
from edgefleet.protocol.gateway import Archive, RuntimeOffer
from edgefleet.runtime_archive.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefleet.interfaces.blobs import BlobStore

MEDIA_TYPE = "application/vnd.edgefleet.runtime.v1.tar+gzip"


def store_archives(archives: Sequence[Path], blobs: BlobStore) -> RuntimeOffer:
    """Check archives, store them in the registry, and give the offer that names them.

    Raises:
        InvalidInputError: they aren't of one version, or two are of one platform.
        IntegrityError: one is no archive of the runtime.
    """
    versions: dict[str, Path] = {}
    found: dict[str, Archive] = {}
    for path in archives:
        about = read_manifest(path)
        versions[about.runtime] = path
        if about.platform in found:
            raise InvalidInputError(
                f"two archives are for {about.platform}", cure="give one a platform"
            )
        digest, size = digest_of_file(path)
        found[about.platform] = Archive(digest=digest, size=size)
    if len(versions) != 1:
        raise InvalidInputError(
            f"the archives are of several versions: {', '.join(sorted(versions)) or 'none'}",
            cure="give archives of one version",
        )
    for path, archive in zip(archives, found.values(), strict=True):
        blobs.put(
            Descriptor(media_type=MEDIA_TYPE, digest=archive.digest, size=archive.size),
            lambda path=path: open_plain(path),  # type: ignore[misc]
        )
    return RuntimeOffer(runtime=next(iter(versions)), archives=found)
