"""A registry kept in a state store: for backends that have no model registry of their own.

Records are JSON documents below ``registry/<name>/``: ``versions/<version>.json`` and
``aliases.json``. Compare-and-swap makes versions unique and concurrent changes safe. A deleted
version leaves a mark in its place, so that its name never comes to mean something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import AlreadyExistsError, ConflictError, NotFoundError
from edgefleet.interfaces.registry import Registry
from edgefleet.interfaces.values import ModelVersion
from edgefleet.protocol.typed import decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet.interfaces.blobs import BlobStore
    from edgefleet.interfaces.state import StateStore

_ROOT = "registry/"
_DELETED = b'{"deleted":true}'


class DocumentRegistry(Registry):
    """Versions as documents of a state store, bytes in a blob store.

    Args:
        blobs: where bundles' bytes lie.
        state: where versions and aliases are recorded.
        provider: name of the plugin that offers it.
    """

    def __init__(self, blobs: BlobStore, state: StateStore, *, provider: str) -> None:
        self.blobs = blobs
        self._state = state
        self.provider = provider

    def _create(self, record: ModelVersion) -> None:
        key = _version_key(record.name, record.version)
        try:
            self._state.write(key, _encode(record), expect=None)
        except ConflictError as error:
            stored = self._state.read(key)
            gone = stored is not None and stored.data == _DELETED
            msg = f"{record} {'was deleted' if gone else 'exists already'}"
            cure = "push under another version, or none for the next whole number"
            raise AlreadyExistsError(msg, cure=cure) from error

    def _get(self, name: str, version: str) -> ModelVersion | None:
        stored = self._state.read(_version_key(name, version))
        if stored is None or stored.data == _DELETED:
            return None
        return self._decode(stored.data, self._aliases(name))

    def _versions(self, name: str) -> Iterator[ModelVersion]:
        aliases = self._aliases(name)
        for key in self._state.keys(f"{_ROOT}{name}/versions/"):
            stored = self._state.read(key)
            if stored is not None and stored.data != _DELETED:
                yield self._decode(stored.data, aliases)

    def _names(self) -> Iterator[str]:
        names = {
            key.removeprefix(_ROOT).split("/", 1)[0]
            for key in self._state.keys(_ROOT)
            if "/versions/" in key
        }
        return (name for name in names if any(True for _ in self._versions(name)))

    def _update(
        self, name: str, version: str, change: Callable[[ModelVersion], ModelVersion]
    ) -> ModelVersion:
        def edit(data: bytes | None) -> bytes:
            if data is None or data == _DELETED:
                msg = f"{name}:{version} was deleted meanwhile"
                raise NotFoundError(msg)
            return _encode(change(self._decode(data, {})))

        data = self._state.update(_version_key(name, version), edit)
        return self._decode(data, self._aliases(name))

    def _delete(self, name: str, version: str) -> None:
        key = _version_key(name, version)
        stored = self._state.read(key)
        if stored is not None and stored.data != _DELETED:
            self._state.write(key, _DELETED, expect=stored.tag)

    def _taken(self, name: str) -> Iterator[str]:
        for key in self._state.keys(f"{_ROOT}{name}/versions/"):
            yield key.rsplit("/", 1)[1].removesuffix(".json")

    def _aliases(self, name: str) -> dict[str, str]:
        stored = self._state.read(f"{_ROOT}{name}/aliases.json")
        return {} if stored is None else decoder(dict[str, str]).decode(stored.data)

    def _set_alias(self, name: str, alias: str, version: str) -> None:
        def edit(data: bytes | None) -> bytes:
            aliases = {} if data is None else decoder(dict[str, str]).decode(data)
            return msgspec.json.encode({**aliases, alias: version}, order="sorted")

        self._state.update(f"{_ROOT}{name}/aliases.json", edit)

    @staticmethod
    def _decode(data: bytes, aliases: dict[str, str]) -> ModelVersion:
        record = ModelVersion.model_validate_json(data)
        names = tuple(sorted(a for a, version in aliases.items() if version == record.version))
        return record.model_copy(update={"aliases": names})


def _version_key(name: str, version: str) -> str:
    return f"{_ROOT}{name}/versions/{version}.json"


def _encode(record: ModelVersion) -> bytes:
    return record.model_dump_json(exclude={"aliases"}).encode()
