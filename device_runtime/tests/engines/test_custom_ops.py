"""Libraries of custom operators beside a model: none is opened unless an operator named it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_runtime.tests import onnx_models
from edgefleet.errors import InvalidInputError, InvalidModelError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.custom_ops import allowed_libraries, digest_of, libraries_beside
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from pathlib import Path

COMPILER = shutil.which("cc")
# onnxruntime_c_api.h: the one symbol of such a library; a null pointer is success.
SOURCE = """
int registered = 0;
void *RegisterCustomOps(void *options, const void *api) { registered++; return 0; }
"""
OTHER = "sha256:" + "0" * 64


@pytest.fixture
def library(tmp_path: Path) -> Path:
    if COMPILER is None:
        pytest.skip("no C compiler here to build a library with")
    source, built = tmp_path / "ops.c", tmp_path / "libops.so"
    source.write_text(SOURCE)
    command = [COMPILER, "-shared", "-fPIC", "-o", str(built), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return built


def registered(library: Path) -> int:
    return ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "registered").value


def test_a_library_beside_a_model_is_not_loaded_unasked(tmp_path: Path, library: Path) -> None:
    OnnxRuntimeEngine().load(onnx_models.mlp(tmp_path / "m.onnx"), EngineOptions())
    OnnxRuntimeEngine().load(tmp_path / "m.onnx", EngineOptions(custom_ops=(OTHER,)))
    assert registered(library) == 0


def test_a_library_that_an_operator_named_is_loaded(tmp_path: Path, library: Path) -> None:
    path = onnx_models.mlp(tmp_path / "m.onnx")
    model = OnnxRuntimeEngine().load(path, EngineOptions(custom_ops=(OTHER, digest_of(library))))
    assert registered(library) >= 1
    assert model.infer({"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 2)


def test_a_library_that_changed_is_not_the_one_named(tmp_path: Path) -> None:
    library = tmp_path / "libops.so"
    library.write_bytes(b"one")
    named = (digest_of(library),)
    assert allowed_libraries(tmp_path / "m.onnx", named) == (library,)
    library.write_bytes(b"two")
    assert allowed_libraries(tmp_path / "m.onnx", named) == ()


def test_an_operator_that_lacks_tells_which_library_to_allow(tmp_path: Path) -> None:
    path = onnx_models.custom_operator(tmp_path / "m.onnx")
    library = tmp_path / "libops.so.1"
    library.write_bytes(b"code")
    with pytest.raises(InvalidModelError, match="Frobnicate") as refused:
        OnnxRuntimeEngine().load(path, EngineOptions())
    assert f"--allow-custom-ops {digest_of(library)} for libops.so.1" in str(refused.value)


def test_links_and_other_files_are_no_libraries(tmp_path: Path) -> None:
    (tmp_path / "ops.so").symlink_to("/usr/lib/libc.so")
    (tmp_path / "ops.py").write_text("pass")
    (tmp_path / "so").write_text("")
    (tmp_path / "folder.so").mkdir()
    assert libraries_beside(tmp_path / "m.onnx") == ()


@pytest.mark.parametrize("digest", ["", "sha256:", "md5:" + "0" * 32, "sha256:" + "G" * 64])
def test_what_is_no_digest_is_refused(tmp_path: Path, digest: str) -> None:
    with pytest.raises(InvalidInputError, match="no digest"):
        allowed_libraries(tmp_path / "m.onnx", (digest,))
