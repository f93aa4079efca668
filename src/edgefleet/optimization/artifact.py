"""Artifact: the files of one candidate, whatever engine opens them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgefleet.optimization.onnx_file import inspect
from edgefleet.protocol.digest import digest_of_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.protocol.bundle import Interface

ONNX = "onnx"
ENTRY = "model.onnx"
"""Every ONNX variant's entry, whatever the file was called: a bundle's digest is of content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What an engine opens, and what lies beside it.

    Attributes:
        format: ``onnx``, ``openvino``, ``tflite``, …: decides the engine.
        precision: what most of its weights are.
        entry: path in the bundle of the file that an engine opens.
        files: path in the bundle -> file, the entry included.
        size_bytes: of all files together.
        interface: inputs and outputs as callers see them: the model's as given.
        opset: of the default ONNX domain; None for other formats.
        custom_domains: operators that no engine brings along by itself.
        notes: what lineage says of how it was made.
    """

    format: str
    precision: str
    entry: str
    files: Mapping[str, Path]
    size_bytes: int
    interface: Interface
    notes: Mapping[str, str]
    opset: int | None = None
    custom_domains: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file that an engine opens."""
        return self.files[self.entry]

    def digest(self) -> str:
        """Digest of the file, or, of several, of a list of their paths and digests."""
        if len(self.files) == 1:
            return digest_of_file(self.path)[0]
        lines = [f"{digest_of_file(path)[0]} {name}\n" for name, path in sorted(self.files.items())]
        return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def of_onnx(
    file: OnnxFile, *, precision: str | None = None, notes: Mapping[str, str] | None = None
) -> Artifact:
    """An ONNX file with its external data.

    Args:
        file: as `onnx_file.inspect` gave it.
        precision: what to call it; None for what most of its weights are.
        notes: for lineage.
    """
    files = {part.location: part.path for part in file.external}
    taken = {location.split("/", 1)[0].casefold() for location in files}
    entry = file.path.name if ENTRY.casefold() in taken else ENTRY
    return Artifact(
        format=ONNX,
        precision=precision or file.precision,
        entry=entry,
        files={**files, entry: file.path},
        size_bytes=file.size_bytes,
        interface=file.interface,
        opset=file.opset,
        custom_domains=file.custom_domains,
        notes=dict(notes or {}),
    )


def made_onnx(
    path: Path, interface: Interface, *, precision: str, notes: Mapping[str, str]
) -> Artifact:
    """A file that a tool wrote from a model of that interface.

    Raises:
        InvalidModelError: what was written is no model that devices load.
    """
    return of_onnx(replace(inspect(path), interface=interface), precision=precision, notes=notes)
