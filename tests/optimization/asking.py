"""An ONNX file asked by onnxruntime itself, with nothing of ours between."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping


def ask(path: os.PathLike[str] | str, feed: Mapping[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))
