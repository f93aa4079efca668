"""What keeps a runtime from a device is told before anything is installed there, with its cure."""

from __future__ import annotations

import ast
import importlib
import os
import platform
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgefleet.runtime_archive import device_check

HERE = f"3.{sys.version_info.minor}"
MANIFEST: dict[str, object] = {
    "pythons": [HERE],
    "platform": f"linux-{platform.machine()}",
    "glibc": "2.17",
    "unpacked_bytes": 1000,
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="devices have Linux")


def refused(folder: Path, **changes: object) -> str | None:
    return device_check.refused(MANIFEST | changes, folder)


def test_this_machine_is_taken(tmp_path: Path) -> None:
    assert refused(tmp_path / "not" / "yet") is None


def test_another_python_is_refused_and_those_that_do_are_named(tmp_path: Path) -> None:
    said = refused(tmp_path, pythons=["3.98", "3.99"])
    assert said is not None
    assert f"this is CPython {HERE}, and the archive is for CPython 3.98, 3.99" in said
    assert f"--python {HERE}" in said


def test_another_machine_is_refused(tmp_path: Path) -> None:
    assert "for Linux on riscv64" in str(refused(tmp_path, platform="linux-riscv64"))


def test_a_32_bit_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(struct, "calcsize", lambda _: 4)
    assert "install the 64-bit version" in str(refused(tmp_path))


def test_an_older_c_library_is_refused(tmp_path: Path) -> None:
    assert "the archive's wheels need 2.98: build the archive with --glibc 2." in str(
        refused(tmp_path, glibc="2.98")
    )


def test_another_c_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr", lambda _: None)
    assert "Alpine has musl" in str(refused(tmp_path))


def test_a_python_in_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> ModuleType:
        if name == "ssl":
            raise ImportError("no libssl")
        return sys

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert "lacks the module ssl (no libssl)" in str(refused(tmp_path))


def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path) -> None:
    said = refused(tmp_path, unpacked_bytes=1 << 60)
    assert said is not None
    assert said.endswith("are needed: make room")


def test_an_old_python_understands_it() -> None:
    text = Path(str(device_check.__file__)).read_text("utf-8")
    tree: Any = ast.parse(text, feature_version=(3, 6))
    imported = {
        name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    assert imported <= {"importlib", "json", "os", "platform", "struct", "sys"}
    assert "__future__" not in text  # annotations are younger than 3.6
