"""A component's artifacts on a device's disk: fetched once, checked, unpacked."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from typing import TYPE_CHECKING

from edgefleet.protocol.files import write_whole
from edgefleet_aws.cloud.recipes import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_aws.cloud.components import Component
    from edgefleet_aws.cloud.recipes import Manifest


def fetch_artifacts(
    component: Component,
    manifest: Manifest,
    *,
    folder: Path,
    unpacked: Path,
    read: Callable[[str], bytes | None],
) -> None:
    """Get what isn't there yet.

    Args:
        component: what they belong to.
        manifest: of it, for this platform.
        folder: for the artifacts.
        unpacked: for those that are archives.
        read: gives the bytes at an address.

    Raises:
        RefusedError: one isn't there, or isn't what the cloud saw when the component was made.
    """
    for artifact in manifest.artifacts:
        address = artifact.get("Uri", artifact.get("URI", ""))
        file = folder / address.rpartition("/")[2]
        if file.exists():
            continue
        data = read(address)
        if data is None:
            raise RefusedError(f"ARTIFACT_DOWNLOAD_ERROR: {address}")
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        if digest != component.digests.get(address):
            raise RefusedError(f"ARTIFACT_CHECKSUM_MISMATCH: {address}")
        folder.mkdir(parents=True, exist_ok=True)
        if str(artifact.get("Unarchive", "NONE")).upper() == "ZIP":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.extractall(unpacked / file.stem)  # leaves out what would lie outside
        write_whole(file, data)
