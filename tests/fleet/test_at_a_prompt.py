"""What a Python prompt or a notebook shows of what a fleet gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import edgefleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.fleet import Fleet


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgefleet.toml").write_text(
        '[profiles.default]\nprovider = "local"\n\n[profiles.default.local]\nsupervise = false\n',
        encoding="utf-8",
    )
    with edgefleet.connect() as opened:
        yield opened


def test_status_and_explanation_show_themselves_as_they_print(fleet: Fleet) -> None:
    fleet.enroll("cam-1", group="line-3")
    for shown in (fleet.status(), fleet.status("line-3"), fleet.why("cam-1")):
        assert repr(shown) == str(shown)
        assert "cam-1" in shown._repr_html_()
    assert repr(fleet.why("cam-1")).startswith("cam-1 in local/line-3: pending\n  wanted ")


def test_a_fleet_of_nothing_shows_what_to_do(fleet: Fleet) -> None:
    assert repr(fleet.status()) == "no groups yet; enrol a device into one"
    assert repr(fleet.status()) in fleet.status()._repr_html_()


def test_a_service_shows_what_it_is(fleet: Fleet) -> None:
    assert repr(fleet.registry) == "<LocalRegistry of local>"
    assert repr(dict(fleet.deployers)) == "{'local': <LocalDeployer of local>}"


def test_completion_offers_what_is_public_and_nothing_that_the_module_works_with() -> None:
    offered = {name for name in dir(edgefleet) if not name.startswith("_")}
    assert set(edgefleet.__all__) - {"__version__"} <= offered
    assert not offered & {"Any", "TYPE_CHECKING", "import_module"}
