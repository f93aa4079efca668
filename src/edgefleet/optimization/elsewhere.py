"""Formats by the endings of files, and the vendors' tools that make what nothing here makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.target import HardwareTarget

ENDINGS = {
    ".onnx": "onnx",
    ".tflite": "tflite",
    ".xml": "openvino",
    ".engine": "tensorrt",
    ".plan": "tensorrt",
    ".dlc": "qnn",
    ".bin": "qnn",
    ".cavalry": "cvflow",
    ".tar": "neo",
    ".so": "neo",
}
"""Format of a file that an engine opens, by its ending."""

TOOLS = {
    "tensorrt": "trtexec",
    "qnn": "qnn-context-binary-generator",
    "cvflow": "Ambarella's CVflow toolchain",
    "neo": "a compiler like SageMaker Neo's",
}
"""Format -> what makes it; none of these comes from a package index."""

EDGE_TPU = "EdgeTpuDelegate"
_ADD = "add its output with bundle.add_variant"
COMPILE_FOR_EDGE_TPU = f"the Edge TPU needs edgetpu_compiler; {_ADD}"


def format_of(file: Path) -> str:
    """The format of a file by its ending.

    Raises:
        InvalidInputError: the ending tells none.
    """
    found = ENDINGS.get(file.suffix.lower())
    if found is None:
        raise InvalidInputError(
            f"the ending of {file.name} tells no format",
            cure=f"give model_format=, or a file that ends in {', '.join(ENDINGS)}",
        )
    return found


def tools_for(target: HardwareTarget) -> str:
    """What somebody must run elsewhere to serve a target best; empty where nothing.

    The Edge TPU runs what its own compiler made (https://coral.ai/docs/edgetpu/compiler/); the
    device's CPU runs any other LiteRT file.
    """
    if EDGE_TPU in target.providers:
        return COMPILE_FOR_EDGE_TPU
    named = [f"{form} needs {TOOLS[form]}" for form in target.formats if form in TOOLS]
    return f"{'; '.join(named)}; {_ADD}" if named else ""
