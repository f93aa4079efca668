"""What the operating system's errors mean here.

Those that mean the same everywhere, such as a full disk or a refused permission, are mapped by the
SDK itself. Numbers as in errno(3), https://man7.org/linux/man-pages/man3/errno.3.html.
"""

from __future__ import annotations

import errno

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    EdgeFleetError,
    LimitExceededError,
    StorageFullError,
    UnavailableError,
)

_MEANING: dict[int, tuple[type[EdgeFleetError], str]] = {
    errno.EFBIG: (StorageFullError, "raise the limit on file sizes: ulimit -f"),
    errno.EROFS: (AccessDeniedError, "choose a root on a file system that can be written"),
    errno.ENOTDIR: (ConfigurationError, "choose a root that is a folder, or remove that file"),
    errno.EEXIST: (ConfigurationError, "choose a root that is a folder, or remove that file"),
    errno.ENAMETOOLONG: (LimitExceededError, "choose a root with a shorter path, or shorter names"),
    errno.EMFILE: (UnavailableError, "raise the limit on open files (ulimit -n)"),
    errno.ENFILE: (UnavailableError, "close programs that hold many files, then repeat the call"),
    errno.EAGAIN: (UnavailableError, "raise the limit on processes (ulimit -u), or close some"),
    errno.ENOLCK: (UnavailableError, "choose a root on a file system that has file locks"),
    errno.EIO: (UnavailableError, "check the disk that holds the root"),
    errno.ESTALE: (UnavailableError, "the share that holds the root is gone; mount it again"),
}


def translate(error: Exception) -> EdgeFleetError | None:
    """The error of ours that an operating system's error means here; None for others."""
    if not isinstance(error, OSError) or error.errno not in _MEANING:
        return None
    kind, cure = _MEANING[error.errno]
    return kind(str(error), cure=cure)
