"""What `doctor` says of those who write for devices that have no access of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.plugins import discovery
from tests.cli import keyed, outpost
from tests.cli.conftest import RunJson

PROFILES = """
[profiles.default]
provider = "local"
telemetry = "outpost"
deployers = ["outpost"]
[profiles.deaf]
provider = "local"
telemetry = "outpost"
deployers = ["outpost"]
outpost.receives = false
[profiles.plain]
provider = "local"
telemetry = "outpost"
"""


@pytest.fixture(autouse=True)
def _outpost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin, installed, in profiles with the local provider for the rest."""
    about = tmp_path / "site" / "outpost-1.0.dist-info"
    about.mkdir(parents=True)
    about.joinpath("METADATA").write_text("Name: outpost-plugin\nVersion: 1.0\n")
    about.joinpath("entry_points.txt").write_text(
        "[edgefleet.providers]\noutpost = tests.cli.outpost"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(keyed, "GIVEN", {})  # groups of other tests
    monkeypatch.setattr(outpost, "PROBLEMS", {"store:Write": None, "store:Tag": "not allowed"})
    (tmp_path / "edgefleet.toml").write_text(PROFILES)
    discovery.provider.cache_clear()
    yield
    sys.path_importer_cache.clear()
    discovery.provider.cache_clear()


def test_what_gateways_may_not_do_is_a_warning(run_json: RunJson) -> None:
    found = run_json("doctor")
    told = {one["name"]: one for one in found["checks"]}
    assert told["receiving"]["state"] == "ok"
    assert told["receiving: store:Write"]["state"] == "ok"
    lacks = told["receiving: store:Tag"]
    assert (lacks["state"], lacks["detail"]) == ("warning", "not allowed")
    assert "let gateways" in lacks["cure"]


def test_telemetry_that_takes_nothing_from_gateways_is_an_error(run_json: RunJson) -> None:
    found = run_json("doctor", "--profile", "deaf", expect=1)
    (wrong,) = [one for one in found["checks"] if one["state"] == "error"]
    assert wrong["name"] == "receiving"
    assert "lacks CanReceive" in wrong["detail"]


def test_where_devices_write_themselves_nobody_else_is_asked(run_json: RunJson) -> None:
    found = run_json("doctor", "--profile", "plain")
    names = [one["name"] for one in found["checks"]]
    assert "telemetry: store:Read" in names
    assert not [name for name in names if name.startswith("receiving")]
