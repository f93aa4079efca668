"""Archives of the runtime, stored where devices fetch them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.files import open_plain
from edgefleet.protocol.gateway import RuntimeOffer
from edgefleet.runtime_archive.manifest import archives_in

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
    version, found = archives_in(archives)
    for path, archive in zip(archives, found.values(), strict=True):  # as they were given
        blobs.put(
            Descriptor(media_type=MEDIA_TYPE, digest=archive.digest, size=archive.size),
            lambda path=path: open_plain(path),  # type: ignore[misc]
        )
    return RuntimeOffer(runtime=version, archives=found)
