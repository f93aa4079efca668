"""What an import pulls in: a device has little memory, and `import edgefleet` must be quick."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgefleet.protocol

HEAVY = {
    "numpy",
    "onnx",
    "onnxruntime",
    "datasketches",
    "pandas",
    "pyarrow",
    "sklearn",
    "matplotlib",
}
VENDORS = {"awscrt", "azure", "boto3", "botocore", "google", "kubernetes", "msrest", "sagemaker"}
PYDANTIC = {"pydantic", "pydantic_core"}

PROTOCOL = [
    info.name
    for info in pkgutil.walk_packages(edgefleet.protocol.__path__, "edgefleet.protocol.")
    if not info.name.endswith("__main__")
]


def pulled_in(*modules: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after these imports."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_edgefleet_pulls_in_nothing_heavy_and_no_vendor() -> None:
    assert not pulled_in("edgefleet") & (HEAVY | VENDORS | PYDANTIC)


def test_importing_the_errors_pulls_in_only_the_standard_library() -> None:
    extra = pulled_in("edgefleet.errors") - pulled_in() - {"edgefleet"}
    assert extra <= sys.stdlib_module_names


def test_importing_the_whole_protocol_pulls_in_nothing_heavy() -> None:
    assert not pulled_in(*PROTOCOL) & (HEAVY | VENDORS | PYDANTIC)


@pytest.mark.parametrize("module", PROTOCOL)
def test_each_module_of_the_protocol_can_be_imported_first(module: str) -> None:
    assert "edgefleet" in pulled_in(module)


def test_documents_can_be_read_without_a_decompressor() -> None:
    light = ["documents", "pointer", "release", "report", "event", "bundle", "layout", "target"]
    assert "backports.zstd" not in pulled_in(*(f"edgefleet.protocol.{name}" for name in light))


def test_onnxruntime_tells_nobody_what_it_opens(tmp_path: Path) -> None:
    """It would make an identifier and a file of what to send, and connect to its maker."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.defpath, "TMPDIR": str(tmp_path)}
    code = (
        "import edgefleet.errors, onnxruntime\n"
        "from onnx import parser\n"
        "model = parser.parse_model('<ir_version: 9, opset_import: [\"\": 17]>'\n"
        "    'm (float[1] x) => (float[1] y) { y = Neg(x) }').SerializeToString()\n"
        "onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])\n"
    )
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=90)
    assert list(home.rglob("*")) == []


def test_who_wants_onnxruntime_to_tell_can_have_it() -> None:
    code = "import os, edgefleet; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
