"""What a built engine depends on: light, for those who keep none pay nothing for the cache."""

from __future__ import annotations

import hashlib

import msgspec


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a built engine depends on.

    Attributes:
        builder: name of the engine that builds and loads it, such as ``onnxruntime``.
        provider: execution provider that it is for.
        model: digest of the model's files.
        options: of the provider.
        machine: versions and hardware, by name.
    """

    builder: str
    provider: str
    model: str
    options: dict[str, str]
    machine: dict[str, str]

    @property
    def key(self) -> str:
        """The entry's name: 64 hexadecimal digits."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()
