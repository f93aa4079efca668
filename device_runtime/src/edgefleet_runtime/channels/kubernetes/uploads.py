"""Where a device's segments, samples and kept hot events go, by the scheme of the address."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import urlsplit

from edgefleet_runtime.store.bandwidth import open_plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.channels.kubernetes.settings import Settings


class Uploads(Protocol):
    """Takes files of one device."""

    def put(self, name: str, path: Path, opened: Callable[[Path], BinaryIO] = open_plain) -> None:
        """Write a file below the device's own prefix; the same again changes nothing.

        Args:
            name: below the prefix.
            path: the file.
            opened: opens it for reading.

        Raises:
            AccessDeniedError: the device may not write there.
            UnavailableError, ThrottledError: not now.
        """


def uploads_for(settings: Settings, device: str) -> Uploads | None:
    """What takes files; None where no address is named.

    Raises:
        ConfigurationError: the device's name makes no address there.
    """
    if settings.segments is None:
        return None
    if urlsplit(settings.segments).scheme == "gs":
        from edgefleet_runtime.store.gcs_upload import GcsUploads  # noqa: PLC0415 - an extra

        return GcsUploads(settings.segments, device)
    from edgefleet_runtime.channels.kubernetes.segments import OciUploads  # noqa: PLC0415 - lazy

    return OciUploads(settings.segments, device, settings.segments_credentials)
