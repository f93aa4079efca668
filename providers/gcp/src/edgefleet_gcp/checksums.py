"""CRC32C as Cloud Storage writes it: base64 of the big-endian value.

https://cloud.google.com/storage/docs/data-validation
"""

from __future__ import annotations

import base64
from typing import Any

import google_crc32c

_Checksum: Any = google_crc32c.Checksum  # it has no types


class Crc32c:
    """A checksum that grows with what is given to it.

    Args:
        data: to begin with.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._sum = _Checksum(data)

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._sum.update(data)

    def __str__(self) -> str:
        """The checksum of all bytes so far."""
        return base64.b64encode(self._sum.digest()).decode("ascii")
