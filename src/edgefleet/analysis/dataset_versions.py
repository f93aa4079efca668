"""The versions of datasets that a fleet remembers: numbers in its state store, tables as blobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgefleet.analysis.dataset_records import (
    MAX_VERSIONS,
    TABLE,
    TABLE_MEDIA_TYPE,
    Version,
    Versions,
)
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.documents import decode, encode

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.analysis.dataset_records import Manifest
    from edgefleet.interfaces.blobs import BlobStore
    from edgefleet.interfaces.state import StateStore

PREFIX = "datasets/"


def versions_key(model: str) -> str:
    """Where the state store keeps a model's versions."""
    return f"{PREFIX}{model}.json"


def read_versions(state: StateStore, model: str) -> tuple[Version, ...]:
    """The versions of a model's datasets that are remembered, oldest first."""
    stored = state.read(versions_key(model))
    return () if stored is None else decode(Versions, stored.data).versions


def models_with_datasets(state: StateStore) -> tuple[str, ...]:
    """Models of which datasets were made, sorted."""
    keys = state.keys(PREFIX)
    return tuple(key.removeprefix(PREFIX).removesuffix(".json") for key in keys)


def remember(
    state: StateStore, blobs: BlobStore, folder: Path, manifest: Manifest, *, by: str
) -> Version:
    """The version as it is remembered: its table stored, and a number that stays its own.

    Args:
        state: the profile's state store.
        blobs: the registry's.
        folder: holds the table that the manifest names.
        manifest: of the version; its number doesn't count.
        by: who asks.
    """
    table = folder / TABLE
    size = table.stat().st_size
    blobs.put(
        Descriptor(media_type=TABLE_MEDIA_TYPE, digest=manifest.table, size=size),
        lambda: table.open("rb"),
    )
    new = Version(
        number=1,
        digest=manifest.digest,
        table=manifest.table,
        samples=manifest.samples,
        made=manifest.made,
        by=by,
    )
    return _numbered(state, manifest.model, new)


def _numbered(state: StateStore, model: str, version: Version) -> Version:
    kept: list[Version] = []

    def change(before: bytes | None) -> bytes:
        held = () if before is None else decode(Versions, before).versions
        kept.clear()
        kept.extend(one for one in held if one.digest == version.digest)
        if kept and before is not None:
            return before
        last = held[-1].number if held else 0
        new = msgspec.structs.replace(version, number=last + 1)
        kept.append(new)
        return encode(Versions(versions=(*held, new)[-MAX_VERSIONS:]))

    state.update(versions_key(model), change)
    return kept[0]
