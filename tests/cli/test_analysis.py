"""`edgefleet drift`, `losses` and `cost`: the same facts as the fleet's methods, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgefleet.fleet import connect
from edgefleet.protocol.event import Account, Tally, new_event
from tests.analysis.recorded import START, drawn, push, reference, window, write
from tests.cli.conftest import Run, RunJson

HOME = Path(".edgefleet/fleet")


def recorded(shift: float) -> None:
    with connect() as fleet:
        version = push(fleet, Path(), reference())
    write(HOME, "cam-1", [window(version, 0, first=drawn(1, shift))])


def test_drift_is_shown_and_may_fail_a_pipeline(run: Run, run_json: RunJson) -> None:
    recorded(3.0)
    assert run("drift", "digits").stdout.startswith("digits: moved\n")
    assert run_json("drift", "digits", "--by", "fleet")["units"][0]["verdict"] == "moved"
    assert "moved" in run("drift", "digits", "--fail-on", "moved", expect=1).stdout
    run("drift", "digits", "--fail-on", "watch", expect=1)
    assert run_json("drift", "digits", "--since", "1h")["units"] == []


def test_a_stable_fleet_fails_nothing(run: Run) -> None:
    recorded(0.0)
    assert run("drift", "digits", "--fail-on", "watch").stdout.startswith("digits: stable\n")


def test_a_model_that_is_not_there_is_an_error(run: Run) -> None:
    assert "no model 'digits'" in run("drift", "digits", expect=3).stderr


def test_losses_are_shown(run: Run, run_json: RunJson) -> None:
    assert run("losses").stdout == "no accounts\n"
    tally = Tally(kind="prediction", model="digits", seen=10, dropped=4)
    day = START.date().isoformat()
    account = Account(spool="s", day=day, number=1, tallies=(tally,))
    write(HOME, "cam-1", [new_event(account, time=START)])
    assert run("losses").stdout.startswith("kept 6 of 10 predictions\n")
    assert run_json("losses", "--model", "digits")["kinds"][0]["dropped"] == 4


@pytest.mark.filterwarnings("default::RuntimeWarning")
def test_a_segment_that_cannot_be_read_is_a_line_beside_the_facts(
    run: Run, run_json: RunJson
) -> None:
    tally = Tally(kind="prediction", model="digits", seen=10, dropped=4)
    account = Account(spool="s", day=START.date().isoformat(), number=1, tallies=(tally,))
    torn = write(HOME, "cam-1", [new_event(account, time=START)])
    torn.write_bytes(torn.read_bytes()[:-5])
    said = run("losses").stderr
    assert said == f"warning: segment set aside: {torn.relative_to(HOME)} is cut short\n"
    assert list(run_json("losses")["unreadable"]) == [torn.relative_to(HOME).as_posix()]


def test_cost_is_estimated_by_the_prices_given(run: Run, run_json: RunJson) -> None:
    Path("mine.toml").write_text(
        'provider = "local"\nregion = "here"\ncurrency = "EUR"\n'
        '[[meters]]\nname = "rent"\nrole = "delivery"\nflows = ["device"]\n'
        'tiers = [{ price = 2.0 }]\nsource = "https://example.com"\nread = 2026-11-22\n'
    )
    given = ("cost", "--devices", "5", "--prices", "mine.toml")
    assert run(*given).stdout.startswith("5 devices: 10.00 EUR a month\n")
    assert run_json(*given)["lines"][0]["cost"] == 10.0


def test_cost_is_estimated_for_a_policy_s_file(run_json: RunJson) -> None:
    Path("quiet.toml").write_text("prediction_fraction = 0.0\n")
    quiet = run_json("cost", "--devices", "5", "--policy", "quiet.toml")
    assert quiet["usage"]["flows"]["put"] == []
    assert run_json("cost", "--devices", "5")["usage"]["flows"]["put"]


def test_cost_without_anything_recorded_names_the_cure(run: Run) -> None:
    assert "give a number of devices to estimate for" in run("cost", expect=1).stderr


def test_a_picture_is_written(run: Run) -> None:
    pytest.importorskip("matplotlib")
    recorded(1.0)
    run("drift", "digits", "--plot", "drift.png")
    run("losses", "--plot", "losses.png")
    run("cost", "--devices", "1", "--plot", "cost.png")
    for name in ("drift", "losses", "cost"):
        assert Path(f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(run("losses", "--json").stdout)["kinds"] == []
