"""`edgefleet access` and what `doctor` says of access, on a deployer whose access ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgefleet.plugins import discovery
from tests.cli import keyed
from tests.cli.conftest import Run, RunJson


@pytest.fixture(autouse=True)
def _keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin, installed, in a profile with the local provider for the rest."""
    about = tmp_path / "site" / "keyed-1.0.dist-info"
    about.mkdir(parents=True)
    about.joinpath("METADATA").write_text("Name: keyed-plugin\nVersion: 1.0\n")
    about.joinpath("entry_points.txt").write_text("[edgefleet.providers]\nkeyed = tests.cli.keyed")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "edgefleet.toml").write_text(
        '[profiles.default]\nprovider = "local"\ndeployers = ["keyed"]\n'
        '[profiles.plain]\nprovider = "local"\n'
    )
    discovery.provider.cache_clear()
    keyed.GIVEN.clear()
    keyed.CALLS.clear()
    yield
    sys.path_importer_cache.clear()
    discovery.provider.cache_clear()


def give(**days: float | None) -> None:
    """Have groups whose access ends in so many days."""
    now = datetime.now(UTC)
    for group, left in days.items():
        keyed.GIVEN[group] = None if left is None else now + timedelta(days=left)


def renewed(found: dict[str, Any]) -> dict[str, bool]:
    return {one["group"]: one["renewed"] for one in found["access"]}


def test_show_tells_when_access_ends_and_changes_nothing(run: Run, run_json: RunJson) -> None:
    give(a=20, b=None)
    found = run_json("access", "show")["access"]
    assert [(one["group"], one["kind"], one["deployer"]) for one in found] == [
        ("a", "read", "keyed"),
        ("b", "read", "keyed"),
    ]
    ends = keyed.GIVEN["a"]
    assert ends is not None
    assert found[0]["ends"] == ends.isoformat()
    assert found[1]["ends"] is None
    assert "not given" in run("access", "show").stdout
    assert keyed.CALLS == []


def test_renew_renews_what_has_passed_half_of_its_time(run_json: RunJson) -> None:
    give(late=2, ended=-3, revoked=None, fresh=25)
    assert renewed(run_json("access", "renew")) == {
        "late": True,
        "ended": True,
        "revoked": True,
        "fresh": False,
    }


def test_renewing_again_changes_nothing(run_json: RunJson) -> None:
    give(a=2, b=3)
    run_json("access", "renew")
    assert renewed(run_json("access", "renew")) == {"a": False, "b": False}
    assert keyed.CALLS == ["a", "b"]


def test_how_long_before_its_end_can_be_said(run_json: RunJson) -> None:
    give(a=20, b=28)
    assert renewed(run_json("access", "renew", "--within", "25")) == {"a": True, "b": False}


def test_one_group_can_be_renewed_alone(run_json: RunJson) -> None:
    give(a=2, b=2)
    assert renewed(run_json("access", "renew", "--group", "keyed/b")) == {"b": True}
    assert keyed.CALLS == ["b"]


def test_a_group_without_a_pointer_has_nothing_to_renew(run: Run) -> None:
    give(a=2)
    assert "no pointer" in run("access", "renew", "--group", "keyed/empty", expect=3).stderr


def test_what_was_revoked_is_given_anew(run: Run, run_json: RunJson) -> None:
    give(a=25)
    run("access", "revoke", "--kind", "read", "--yes")
    assert run_json("access", "show")["access"][0]["ends"] is None
    assert renewed(run_json("access", "renew")) == {"a": True}


def test_a_fleet_whose_access_never_ends_says_so(
    run: Run, run_json: RunJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEFLEET_PROFILE", "plain")
    assert "nothing to do" in run("access", "renew").stdout
    assert run_json("access", "show") == {"access": []}
    assert "nothing to do" in run("access", "revoke", "--kind", "write", "--yes").stdout
    run("device", "enroll", "cam-1", "--group", "line-3")
    refused = run("access", "renew", "--group", "line-3", expect=1)
    assert "lacks CanRenewAccess" in refused.stderr


def test_doctor_tells_in_how_many_days_access_ends(run_json: RunJson) -> None:
    give(fresh=25.5, late=3.5, ended=-2, revoked=None)
    found = run_json("doctor", expect=1)["checks"]
    told = {one["name"]: (one["state"], one["detail"]) for one in found if one["area"] == "access"}
    assert told == {
        "keyed/fresh: read": ("ok", "ends in 25 days"),
        "keyed/late: read": ("warning", "ends in 3 days"),
        "keyed/ended: read": ("error", "ended 2 days ago: devices wait"),
        "keyed/revoked: read": ("error", "none is in place: devices wait"),
    }
    cures = {one["cure"] for one in found if one["area"] == "access" and one["state"] != "ok"}
    assert cures == {"edgefleet access renew"}
