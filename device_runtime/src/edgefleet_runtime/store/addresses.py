"""Sources by address: those that a channel brings, and the schemes that are built in."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import UnsupportedError
from edgefleet_runtime.store.folder import FolderSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefleet_runtime.store.sources import Source

    SourceFactory = Callable[[str], Source | None]
    """Makes a source for an address, or None when it doesn't know how."""


def builtin_source(address: str) -> Source | None:
    """A source for ``file``, ``https``, ``http``, ``oci`` and ``gs`` addresses."""
    scheme = urlsplit(address).scheme
    if scheme == "file":
        return FolderSource(address)
    if scheme in ("https", "http"):
        from edgefleet_runtime.store.http import HttpSource  # noqa: PLC0415 - TLS is slow to load

        return HttpSource(address)
    if scheme == "oci":
        from edgefleet_runtime.store.oci import OciSource  # noqa: PLC0415 - TLS is slow to load

        return OciSource(address)
    if scheme == "gs":
        from edgefleet_runtime.store.gcs import GcsSource  # noqa: PLC0415 - TLS is slow to load

        return GcsSource(address)
    return None


def sources_for(addresses: Iterable[str], *factories: SourceFactory) -> tuple[Source, ...]:
    """Sources for a pointer's addresses, in its order.

    Args:
        addresses: as the pointer writes them.
        factories: asked in turn before the built-in schemes, so that a channel may bring its own
            schemes and its own access to those that are known.

    Raises:
        UnsupportedError: nobody here can read any of them.
    """
    found: list[Source] = []
    unknown: list[str] = []
    for address in addresses:
        for factory in (*factories, builtin_source):
            source = factory(address)
            if source is not None:
                found.append(source)
                break
        else:
            unknown.append(urlsplit(address).scheme)
    if not found:
        schemes = ", ".join(sorted(set(unknown))) or "none"
        raise UnsupportedError(
            f"no source of the pointer can be read here (schemes: {schemes})",
            cure="use the channel that brings access to them, or add an https or file source",
        )
    return tuple(found)
