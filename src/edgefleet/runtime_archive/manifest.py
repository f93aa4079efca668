"""What an archive says of itself, as ``manifest.json`` in it; devices read it too."""

from __future__ import annotations

import tarfile
import zlib
from typing import TYPE_CHECKING, Annotated

import msgspec

from edgefleet.errors import EdgeFleetError, IntegrityError, InvalidInputError
from edgefleet.protocol.digest import Digest, digest_of_file
from edgefleet.protocol.documents import Document, decode
from edgefleet.protocol.gateway import Archive, Platform

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME = "manifest.json"
MAX_BYTES = 1 << 20

PythonVersion = Annotated[str, msgspec.Meta(pattern=r"\A3\.\d{1,2}\Z")]


class WheelFile(msgspec.Struct, frozen=True, kw_only=True):
    """One wheel of an archive.

    Attributes:
        file: its name, below ``wheels``.
        digest: of its bytes.
        size: in bytes.
        pythons: those that it is installed for.
    """

    file: str
    digest: Digest
    size: int
    pythons: tuple[PythonVersion, ...]


class Manifest(Document, frozen=True, kw_only=True):
    """What an archive is for and what is in it.

    Attributes:
        runtime: version of the runtime.
        platform: what it runs on.
        pythons: CPythons that it can be installed for.
        glibc: the oldest C library that every wheel is content with.
        extras: of the runtime, that are in it.
        more: requirements that were added to them.
        installer: file name of the wheel of pip that installs the others.
        unpacked_bytes: of all files that are installed, for the Python that takes most.
        wheels: by file name.
    """

    runtime: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z.+\-]{0,62}\Z")]
    platform: Platform
    pythons: Annotated[tuple[PythonVersion, ...], msgspec.Meta(min_length=1)]
    glibc: str
    extras: tuple[str, ...]
    more: tuple[str, ...]
    installer: str
    unpacked_bytes: int
    wheels: tuple[WheelFile, ...]


def read_manifest(archive: Path) -> Manifest:
    """What an archive says of itself.

    Raises:
        IntegrityError: it is no archive of the runtime.
    """
    try:
        with tarfile.open(archive, "r:gz") as opened:
            first = opened.next()  # it is packed first, so that nothing else is read
            found = (
                opened.extractfile(first)
                if first is not None and first.name == NAME and first.size <= MAX_BYTES
                else None
            )
            if found is not None:
                return decode(Manifest, found.read(), max_bytes=MAX_BYTES)
    except (tarfile.TarError, zlib.error, OSError, EOFError, EdgeFleetError) as error:
        raise IntegrityError(
            f"{archive} is no archive of the runtime: {error}", cure=_CURE
        ) from error
    raise IntegrityError(f"{archive} is no archive of the runtime", cure=_CURE)


def archives_in(paths: Sequence[Path]) -> tuple[str, dict[str, Archive]]:
    """The version that some archives are of, and each by its platform, in the order given.

    Raises:
        IntegrityError: one is no archive of the runtime.
        InvalidInputError: they aren't of one version, or two are of one platform, or there is none.
    """
    found: dict[str, Archive] = {}
    versions = set()
    for path in paths:
        about = read_manifest(path)
        if about.platform in found:
            raise InvalidInputError(
                f"two archives are for {about.platform}", cure="give one for each platform"
            )
        digest, size = digest_of_file(path)
        found[about.platform] = Archive(digest=digest, size=size)
        versions.add(about.runtime)
    if len(versions) != 1:
        raise InvalidInputError(
            f"the archives are of several versions: {', '.join(sorted(versions)) or 'none'}",
            cure="give archives of one version of the runtime",
        )
    return versions.pop(), found


_CURE = "make one with: edgefleet runtime build --platform linux-x86_64"
