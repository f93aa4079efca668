"""What an import pulls in: a device has little memory, and `import edgefleet` must be quick."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

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
