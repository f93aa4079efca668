"""Plugins made up for a test: distributions of one module, installed while the test runs."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING, Protocol

import pytest

from edgefleet.plugins import discovery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Install(Protocol):
    """Installs a distribution ``<by>-plugin 1.2`` whose one module is an entry point.

    ``by`` is the entry point's name where none is given.
    """

    def __call__(
        self, name: str, source: str, *, group: str = discovery.PROVIDERS, by: str | None = None
    ) -> None: ...


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules: list[str] = []
    discovery.provider.cache_clear()

    def install(
        name: str, source: str, *, group: str = discovery.PROVIDERS, by: str | None = None
    ) -> None:
        module = f"plugin_of_{name.replace('-', '_')}_{len(modules)}"
        modules.append(module)
        (site / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        about = site / f"{module}-1.2.dist-info"
        about.mkdir()
        about.joinpath("METADATA").write_text(f"Name: {by or name}-plugin\nVersion: 1.2\n")
        points = f"[{group}]\n{name} = {module}" + (":Cloud" if group == discovery.MOCKS else "")
        about.joinpath("entry_points.txt").write_text(points)

    yield install
    for module in modules:
        sys.modules.pop(module, None)
    discovery.provider.cache_clear()
