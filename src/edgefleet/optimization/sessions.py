"""Running any candidate here: which class opens which format."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.session import Session
    from edgefleet.protocol.bundle import Interface

SESSIONS: dict[str, str] = {
    "onnx": "edgefleet.optimization.session:OnnxSession",
    "openvino": "edgefleet.optimization.openvino_session:OpenVinoSession",
    "tflite": "edgefleet.optimization.litert_session:LiteRtSession",
}
"""Format -> module and class."""

LIBRARIES: dict[str, str] = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "tflite": "ai_edge_litert.interpreter",
}
"""Format -> module of the library that its session runs on, which is imported when one opens."""


def open_session(artifact: Artifact) -> Session:
    """The candidate, ready to run on this machine's CPU.

    Raises:
        InvalidModelError: its engine can't load it, or no engine here opens the format.
    """
    return session_of(artifact.format)(artifact.path, artifact.interface)


def session_of(model_format: str) -> Callable[[Path, Interface], Session]:
    """The class that opens a format.

    Raises:
        InvalidModelError: no engine here opens it.
    """
    if model_format not in SESSIONS:
        raise InvalidModelError(
            f"nothing here runs {model_format} files", cure="measure it on the device"
        )
    module, _, name = SESSIONS[model_format].partition(":")
    found: Callable[[Path, Interface], Session] = getattr(import_module(module), name)
    return found
