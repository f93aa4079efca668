"""Finds the engine for a format among the installed ones, by the entry points of their packages.

A package that brings an engine names its `Engine` class in the group
``edgefleet_runtime.engines``. An engine that fails to import is logged and passed over: it harms
only who needs it. Where no other package brings engines, ours are found without
`importlib.metadata`, which takes 20 ms, a tenth of a small server's start.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import MissingExtraError, PluginImportError, UnsupportedError
from edgefleet_runtime.engines.base import Engine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import EntryPoint

_log = logging.getLogger(__name__)

GROUP = "edgefleet_runtime.engines"
_OURS = {
    "onnx": ("edgefleet_runtime.engines.onnxruntime", "OnnxRuntimeEngine"),
    "openvino": ("edgefleet_runtime.engines.openvino", "OpenVinoEngine"),
    "tflite": ("edgefleet_runtime.engines.litert", "LiteRtEngine"),
}
"""Our own engines by the format that they open, as their entry points name them too."""
_CURES = {
    "openvino": "pip install 'edgefleet-runtime[openvino]'",
    "tflite": "pip install 'edgefleet-runtime[litert]'",
}
_CURE = "pip install 'edgefleet-runtime[cpu]', or [gpu] where there is an NVIDIA GPU"


def engine_names() -> tuple[str, ...]:
    """Names of the installed engines, sorted, from metadata alone; nothing is imported."""
    return tuple(sorted({point.name for point in _points()}))


def engine_named(name: str) -> Engine | None:
    """The installed engine of that name; None when there is none or its library is missing."""
    for point in _points():
        if point.name != name:
            continue
        try:
            kind = _load(point)
            return kind() if kind.available() else None
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises stays its own affair
            _log.warning("engine %s can't be used: %s", name, error)
    return None


def engine_for(model_format: str) -> Engine:
    """An engine that opens files of this format and whose library is installed.

    Of several, the first by name.

    Raises:
        MissingExtraError: an engine knows the format and its library is not installed.
        PluginImportError: no engine that imports knows it, and one that doesn't import might.
        UnsupportedError: no installed engine knows it.
    """
    ours = _OURS.get(model_format)
    if ours is not None and not _others_bring_engines():
        own: type[Engine] = getattr(import_module(ours[0]), ours[1])
        if own.available():
            return own()
    fitting: list[tuple[str, type[Engine]]] = []
    broken: list[tuple[str, Exception]] = []
    for point in sorted(_points(), key=lambda found: found.name):
        try:
            kind = _load(point)
            if model_format in kind.formats:
                if kind.available():
                    return kind()
                fitting.append((point.name, kind))
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises stays its own affair
            _log.warning("engine %s can't be used: %s", point.name, error)
            broken.append((point.name, error))
    if fitting:
        names = ", ".join(name for name, _ in fitting)
        msg = f"the library behind the engine for {model_format!r} files is missing: {names}"
        raise MissingExtraError(msg, cure=_CURES.get(model_format, _CURE))
    if broken:
        name, reason = broken[0]
        msg = f"no engine opens {model_format!r} files; the engine {name} can't be used: {reason}"
        raise PluginImportError(msg, cure="repair or remove the package it is from") from reason
    known = ", ".join(engine_names()) or "none"
    msg = f"no installed engine opens {model_format!r} files; installed: {known}"
    raise UnsupportedError(msg, cure=_CURE)


def _others_bring_engines() -> bool:
    """Whether the metadata of another installed wheel names the group."""
    for folder in filter(os.path.isdir, sys.path):
        with os.scandir(folder) as entries:
            for entry in entries:
                ours = entry.name.startswith("edgefleet_runtime-")
                if entry.name.endswith(".dist-info") and not ours and _names_engines(entry.path):
                    return True
    return False


def _names_engines(metadata: str) -> bool:
    try:
        return GROUP.encode() in Path(metadata, "entry_points.txt").read_bytes()
    except OSError:
        return False


def _points() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow, and seldom needed

    return entry_points(group=GROUP)


def _load(point: EntryPoint) -> type[Engine]:
    kind = point.load()
    if not (isinstance(kind, type) and issubclass(kind, Engine)):
        msg = f"{point.value} is no Engine class"
        raise TypeError(msg)
    return kind
