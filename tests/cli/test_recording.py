"""`edgefleet policy`: checked, set and shown on the local provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run, RunJson

POLICY = """prediction_fraction = 0.5

[[alarms]]
name = "low"
model = "tiny"
when = "score < 0.2"
needs = 3
within = 5
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def fleet(run: Run, onnx_file: Callable[..., Path]) -> None:
    """A model that a group without devices runs."""
    run("model", "push", "tiny", str(onnx_file()))
    run("device", "enroll", "cam-1", "--group", "line", "--label", "target=raspberry-pi-5")
    run("deploy", "tiny:1", "--to", "line", "--no-wait")


def test_a_policy_that_is_fine_is_said_to_be(run: Run, run_json: RunJson, policy: Path) -> None:
    assert "fine, 1 rules" in run("policy", "check", str(policy), "--model", "tiny:3").stdout
    assert run_json("policy", "check", str(policy))["problems"] == []


def test_problems_are_told_with_their_place(run: Run, policy: Path) -> None:
    policy.write_text(POLICY.replace("score <", "scor <"))
    told = run("policy", "check", str(policy), "--model", "tiny", expect=1).stderr
    assert "alarms.low.when: 1:1: there is no 'scor' in a prediction" in told
    assert "  | scor < 0.2\n  | ^" in told


def test_a_model_that_the_release_lacks_is_told(run: Run, policy: Path) -> None:
    told = run("policy", "check", str(policy), "--model", "cats", expect=1).stderr
    assert "there is no model 'tiny' in the release" in told


@pytest.mark.usefixtures("fleet")
def test_a_policy_is_set_shown_and_kept_by_the_next_deployment(
    run: Run, run_json: RunJson, policy: Path, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    run("policy", "set", str(policy), "--to", "line", "--no-wait")
    assert run("policy", "show", "line").stdout == POLICY
    assert run_json("policy", "show", "line")["alarms"][0]["needs"] == 3

    run("model", "push", "tiny", str(onnx_file(seed=1)))
    run("deploy", "tiny:2", "--to", "line", "--no-wait")
    assert run("policy", "show", "local/line").stdout == POLICY
    assert run_json("status", "line")["groups"][0]["models"] == ["tiny:2"]
    assert [e["action"] for e in run_json("history", "line")["entries"]] == [
        *("deploy", "record", "deploy")
    ]


@pytest.mark.usefixtures("fleet")
def test_the_same_policy_again_changes_nothing(run: Run, run_json: RunJson, policy: Path) -> None:
    numbers = [
        run_json("policy", "set", str(policy), "--to", "line", "--no-wait")["deployment"]["number"]
        for _ in range(2)
    ]
    assert numbers[0] == numbers[1]


@pytest.mark.usefixtures("fleet")
def test_a_wrong_policy_is_not_sent(run: Run, run_json: RunJson, policy: Path) -> None:
    policy.write_text(POLICY.replace('model = "tiny"', 'model = "cats"'))
    told = run("policy", "set", str(policy), "--to", "line", "--no-wait", expect=1).stderr
    assert "there is no model 'cats' in the release" in told
    assert run_json("policy", "show", "line") == {}


@pytest.mark.usefixtures("fleet")
def test_what_privacy_forbids_is_not_sent(run: Run, run_json: RunJson, policy: Path) -> None:
    policy.write_text('captures = [{name = "all", model = "tiny", inputs = true}]')
    told = run("policy", "set", str(policy), "--to", "line", "--no-wait", expect=1).stderr
    assert "it would ship inputs of tiny, which privacy forbids" in told
    assert run_json("policy", "show", "line") == {}


@pytest.mark.usefixtures("fleet")
def test_a_group_keeps_its_policy_whatever_the_profile_s_table_says(
    run: Run, run_json: RunJson, policy: Path, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    run("policy", "set", str(policy), "--to", "line", "--no-wait")
    given = run_json("policy", "show", "line")
    (tmp_path / "edgefleet.toml").write_text(
        '[profiles.default]\nprovider = "local"\nrecorded = {output_values = 3}\n'
    )
    run("model", "push", "tiny", str(onnx_file(seed=1)))
    run("deploy", "tiny:2", "--to", "line", "--no-wait")
    assert run_json("policy", "show", "line") == given != {"output_values": 3}
