"""Folders that tests make, look into and fill up."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import blob_path
from edgefleet.protocol.layout import BundleLayout, BundleWriter
from tests.contract import samples

if TYPE_CHECKING:
    import pytest


def tree(root: Path) -> dict[str, bytes]:
    """Gives every file's content, by its path below ``root``."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def holds(folder: Path, *names: str) -> bool:
    """Whether a folder holds these entries and no other, hidden ones included."""
    return {path.name for path in folder.iterdir()} == set(names)


def blob_of(root: Path, path: str) -> Path:
    """Gives where the blob of a file of the fp32 variant lies."""
    layout = BundleLayout(root)
    return layout.root / blob_path(b.files_of(layout.manifest("fp32"))[path].digest)


def add(writer: BundleWriter, files: dict[str, Path], **details: Any) -> b.Descriptor:
    """Adds the sample's fp32 variant with other files or details."""
    return writer.add_variant(
        msgspec.structs.replace(samples.DETAILS, **details),
        files,
        model_name="digits",
        model_format="onnx",
        precision="fp32",
    )


class Full:
    """A file whose disk is full after some bytes; stands for the one it wraps."""

    def __init__(self, stream: Any, after: int) -> None:
        self._stream, self._left = stream, after

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, data: bytes) -> int:
        self._stream.write(data[: self._left])
        self._left -= len(data)
        if self._left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)


def fill_disk(monkeypatch: pytest.MonkeyPatch, *, after: int, code: int = errno.ENOSPC) -> None:
    """Let no file be written beyond ``after`` bytes, nor be linked or copied at all."""
    really = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        stream = really(path, mode, *args, **kwargs)
        return Full(stream, after) if "w" in mode or "x" in mode else stream

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    def half(source: Path, target: Path, **_: object) -> None:
        really(target, "wb").close()
        refuse()

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfile", half)
