"""Engines are found by entry point; a broken one harms only who needs it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import MissingExtraError, PluginImportError, UnsupportedError
from edgefleet_runtime.engines.discovery import GROUP, engine_for, engine_names
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[..., None]

ENGINE = """
from edgefleet_runtime.engines.base import Engine

class Fake(Engine):
    formats = frozenset({"fake"})
    providers = ("FakeProvider",)

    @classmethod
    def available(cls):
        return cls.providers

    def load(self, entry, options):
        raise NotImplementedError

class Absent(Fake):
    providers = ()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with engines on the path, as an installer does."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(module: str, code: str, **engines: str) -> None:
        (tmp_path / f"{module}.py").write_text(code)
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        lines = [f"{name} = {module}:{kind}" for name, kind in engines.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def test_an_installed_engine_is_found_by_format(install: Install) -> None:
    install("ef_engine_a", ENGINE, fake="Fake")
    assert "fake" in engine_names()
    assert type(engine_for("fake")).__name__ == "Fake"


def test_our_own_engine_opens_onnx(install: Install) -> None:
    path = "edgefleet_runtime.engines.onnxruntime"
    install("ef_engine_b", f"from {path} import OnnxRuntimeEngine", own="OnnxRuntimeEngine")
    assert isinstance(engine_for("onnx"), OnnxRuntimeEngine)


def test_a_broken_engine_is_passed_over_when_another_fits(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("ef_engine_c", "raise RuntimeError('boom')", a_broken="Fake")
    install("ef_engine_d", ENGINE, fake="Fake")
    assert type(engine_for("fake")).__name__ == "Fake"
    assert "boom" in caplog.text


def test_a_broken_engine_is_named_to_who_may_need_it(install: Install) -> None:
    install("ef_engine_e", "raise RuntimeError('boom')", broken="Fake")
    with pytest.raises(PluginImportError, match="broken can't be used: boom"):
        engine_for("nothing-else-opens-this")


def test_an_entry_point_that_is_no_engine_is_broken(install: Install) -> None:
    install("ef_engine_f", "Fake = dict", nonsense="Fake")
    with pytest.raises(PluginImportError, match="no Engine class"):
        engine_for("nothing-else-opens-this")


def test_an_engine_without_its_library_names_the_extra(install: Install) -> None:
    install("ef_engine_g", ENGINE, absent="Absent")
    with pytest.raises(MissingExtraError, match=r"pip install 'edgefleet-runtime\[cpu\]'"):
        engine_for("fake")


def test_an_engine_with_its_library_is_preferred(install: Install) -> None:
    install("ef_engine_h", ENGINE, a_absent="Absent", z_fake="Fake")
    assert type(engine_for("fake")).__name__ == "Fake"


def test_an_unknown_format_says_what_is_installed(install: Install) -> None:
    install("ef_engine_i", ENGINE, fake="Fake")
    with pytest.raises(UnsupportedError, match="fake"):
        engine_for("nothing-opens-this")
