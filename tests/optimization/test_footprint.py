"""The memory that a candidate adds to a process, read from Linux' own figures."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from onnx import helper

from edgefleet.optimization.artifact import of_onnx
from edgefleet.optimization.footprint import memory_of
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.sessions import LIBRARIES, SESSIONS
from tests.optimization import models

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads the peak from /proc"
)

IMPORTED = """
import numpy
from edgefleet.optimization.footprint import _peak_bytes
before = _peak_bytes()
import onnxruntime
print(_peak_bytes() - before)
"""


def added(width: int, folder: Path) -> int:
    """Bytes that a model of one square matrix adds."""
    model = models.model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [models.floats("x", "N", width)],
        [models.floats("y", "N", width)],
        [models.weights("w", width, width)],
    )
    file = inspect(models.save(model, folder / "m.onnx"))
    found = memory_of(of_onnx(file), {"x": models.inputs_for(1, width=width)}, folder)
    assert found is not None
    return found


def test_the_library_does_not_count(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True
    )
    assert added(4, tmp_path) < int(done.stdout)


def test_what_is_added_holds_the_weights(tmp_path: Path) -> None:
    assert added(2048, tmp_path) > 4 * 2048 * 2048


def test_each_format_names_its_library() -> None:
    assert LIBRARIES.keys() == SESSIONS.keys()
