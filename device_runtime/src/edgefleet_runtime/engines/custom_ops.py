"""Libraries of custom operators that lie beside a model, loaded only if an operator named them.

A library is code: loading one from a bundle would let whoever made the bundle run anything here. So
its digest must be on the operator's list. What isn't there is never opened.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.protocol.digest import digest_of_file

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FILES = 256  # of a model's folder; each might be read
_LIBRARY = re.compile(r".+\.(?:so(?:\.\d+)*|dylib|dll)", re.IGNORECASE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def checked_digests(given: Iterable[str]) -> tuple[str, ...]:
    """The digests of an operator's list.

    Raises:
        InvalidInputError: one is none.
    """
    found = tuple(given)
    for digest in found:
        if not _DIGEST.fullmatch(digest):
            raise InvalidInputError(
                f"{digest[:100]!r} is no digest of a library",
                cure="write sha256: and 64 hexadecimal digits, as sha256sum prints them",
            )
    return found


def libraries_beside(entry: Path) -> tuple[Path, ...]:
    """The shared libraries in the folder of a model file, by their names; links don't count."""
    files = itertools.islice(entry.parent.iterdir(), MAX_FILES)
    return tuple(
        sorted(
            path
            for path in files
            if _LIBRARY.fullmatch(path.name) and path.is_file() and not path.is_symlink()
        )
    )


def allowed_libraries(entry: Path, digests: Iterable[str]) -> tuple[Path, ...]:
    """The libraries beside a model whose digests are on the list.

    Raises:
        InvalidInputError: the list holds what is no digest.
    """
    allowed = frozenset(checked_digests(digests))
    if not allowed:
        return ()
    return tuple(path for path in libraries_beside(entry) if digest_of(path) in allowed)


def how_to_allow(entry: Path, digests: Iterable[str]) -> str | None:
    """What an operator does to let the libraries beside a model load; None if there is nothing."""
    known = frozenset(digests)
    held = [(path.name, digest_of(path)) for path in libraries_beside(entry)]
    refused = [(name, digest) for name, digest in held if digest not in known]
    if not refused:
        return None
    named = "; ".join(f"--allow-custom-ops {digest} for {name}" for name, digest in refused)
    return f"if you trust what comes with the model: {named}"


def digest_of(path: Path) -> str:
    """``sha256:…`` of a file.

    Raises:
        NotFoundError: it is gone.
    """
    try:
        return digest_of_file(path)[0]
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is gone") from error
