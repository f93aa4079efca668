"""From plan to rollback on real devices of the local provider, and what is refused at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, RunJson


@pytest.fixture
def fleet(run: Run, onnx_file: Callable[..., Path]) -> None:
    """Two versions of a model, and two devices in a group that has run nothing yet."""
    for seed in (0, 1):
        run("model", "push", "tiny", str(onnx_file(seed=seed)))
    for device in ("cam-1", "cam-2"):
        run("device", "enroll", device, "--group", "line", "--label", "target=raspberry-pi-5")


def state_of(folder: Path) -> dict[str, bytes]:
    """Everything that operators write, by its path."""
    skipped = {"locks", "partial", "devices"}
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes() for name, path in found.items() if name.parts[0] not in skipped
    }


@pytest.mark.usefixtures("fleet")
def test_a_model_is_deployed_attested_followed_and_rolled_back(run: Run, run_json: RunJson) -> None:
    first = run("deploy", "tiny:1", "--to", "line")
    assert "add tiny 1; 2 devices" in first.stdout
    assert "2/2 attested" in first.stdout
    second = run_json("deploy", "tiny", "--to", "local/line")
    assert second["plan"]["changes"] == [{"model": "tiny", "before": "1", "after": "2"}]
    assert second["deployment"]["status"]["attested"] == 2
    again = run_json("deploy", "tiny:2", "--to", "line")
    assert again["deployment"]["number"] == second["deployment"]["number"]

    status = run_json("status", "line")["groups"][0]
    assert status["models"] == ["tiny:2"]
    assert [device["outcome"] for device in status["devices"]] == ["attested", "attested"]
    back = run_json("rollback", "line")["deployment"]
    assert back["number"] > second["deployment"]["number"]
    assert back["status"]["models"] == ["tiny:1"]

    entries = run_json("history", "line")["entries"]
    assert [entry["action"] for entry in entries] == ["rollback", "deploy", "deploy"]
    assert {entry["actor"] for entry in entries} == {"tester"}
    why = run_json("why", "cam-1")
    assert (why["outcome"], why["cure"]) == ("attested", "none needed")
    assert "cam-1 in local/line: attested" in run("why", "cam-1").stdout
    assert "tiny:1 (fp32)" in run("devices").stdout
    kinds = {event["kind"] for event in run_json("events", "--device", "cam-1")}
    assert "health" in kinds
    assert any("serving on" in line for line in run_json("device", "log", "cam-1")["lines"])
    removed = run_json("remove", "tiny", "--to", "line")["deployment"]
    assert removed["status"]["models"] == []


@pytest.mark.usefixtures("fleet")
def test_a_cohort_tries_a_release_until_it_is_promoted(run_json: RunJson) -> None:
    run_json("deploy", "tiny:1", "--to", "line")
    canary = run_json("deploy", "tiny:2", "--to", "line", "--cohort-permille", "1000")
    assert canary["deployment"]["action"] == "canary"
    assert run_json("status")["groups"][0]["candidate"] == canary["deployment"]["release"]
    promoted = run_json("promote", "line")["deployment"]
    assert promoted["status"]["models"] == ["tiny:2"]
    cancelled = run_json("cancel", "line")["deployment"]
    assert cancelled["status"]["models"] == ["tiny:1"]


@pytest.mark.usefixtures("fleet")
def test_a_shadow_stands_beside_the_active_model_until_it_is_deployed(run_json: RunJson) -> None:
    run_json("deploy", "tiny:1", "--to", "line")
    plan = run_json("plan", "tiny:2", "--to", "line", "--role", "shadow")
    assert [change["model"] for change in plan["changes"]] == ["tiny", "tiny (shadow)"]
    shadow = run_json("deploy", "tiny:2", "--to", "line", "--role", "shadow")["deployment"]
    assert shadow["status"]["models"] == ["tiny:1", "tiny:2 (shadow)"]
    assert shadow["status"]["attested"] == 2
    active = run_json("deploy", "tiny:2", "--to", "line")["deployment"]
    assert active["status"]["models"] == ["tiny:2"]


@pytest.mark.usefixtures("fleet")
def test_a_dry_run_sends_nothing_and_writes_the_whole_desired_set(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    root = tmp_path / ".edgefleet" / "fleet"
    before = state_of(root)
    found = run_json("deploy", "tiny:1", "--to", "line", "--dry-run", "--output", "out")
    assert state_of(root) == before
    plan = written(tmp_path / "out")
    assert plan["documents"] == found["plan"]["documents"]
    release = f"releases/{plan['after'].removeprefix('sha256:')}.json"
    assert actions(plan) == {release: "create", "groups/line/pointer.json": "create"}
    pointer = json.loads((tmp_path / "out" / "groups" / "line" / "pointer.json").read_bytes())
    assert pointer["current"] == plan["after"]
    assert json.loads((tmp_path / "out" / release).read_bytes())["models"][0]["name"] == "tiny"

    run("deploy", "tiny:1", "--to", "line", "--no-wait")
    run("deploy", "tiny:1", "--to", "line", "--dry-run", "--output", "out")
    same = written(tmp_path / "out")
    assert actions(same) == dict.fromkeys(actions(plan), "unchanged")
    run("deploy", "tiny:2", "--to", "line", "--dry-run", "--output", "out")
    assert sorted(actions(written(tmp_path / "out")).values()) == ["create", "update"]


def written(folder: Path) -> dict[str, Any]:
    """plan.json, after checking that it lists what is there."""
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_bytes())
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there == {"plan.json", *actions(plan)}
    return plan


def actions(plan: dict[str, Any]) -> dict[str, str]:
    return {document["path"]: document["action"] for document in plan["documents"]}


@pytest.mark.usefixtures("fleet")
def test_a_deployment_with_something_against_it_is_refused_before_anything_is_sent(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    (tmp_path / "edgefleet.toml").write_text(
        '[profiles.default]\nprovider = "local"\nrequire_approval = true\n'
    )
    root = tmp_path / ".edgefleet" / "fleet"
    before = state_of(root)
    assert run_json("plan", "tiny:1", "--to", "line", expect=4)["problems"]
    refused = run("deploy", "tiny:1", "--to", "line", expect=4)
    assert "nothing was sent" in refused.stderr
    assert "edgefleet model approve tiny:1" in refused.stderr
    assert state_of(root) == before
    run("deploy", "tiny:1", "--to", "line", "--dry-run", "--output", "out", expect=4)
    assert (tmp_path / "out" / "plan.json").is_file()
    run("model", "approve", "tiny:1")
    run("plan", "tiny:1", "--to", "line")


@pytest.mark.usefixtures("fleet")
def test_what_is_not_there_ends_with_3(run: Run) -> None:
    assert "groups there are: line" in run("deploy", "tiny", "--to", "nowhere", expect=3).stderr
    assert "models there are: tiny" in run("deploy", "huge", "--to", "line", expect=3).stderr
    assert "edgefleet devices" in run("why", "nobody", expect=3).stderr
    assert "models it has: none" in run("remove", "huge", "--to", "line", expect=3).stderr


@pytest.mark.usefixtures("fleet")
def test_devices_that_do_not_attest_in_time_end_with_5(run: Run, tmp_path: Path) -> None:
    (tmp_path / "edgefleet.toml").write_text(
        '[profiles.default]\nprovider = "local"\n[profiles.default.local]\nsupervise = false\n'
    )
    late = run("deploy", "tiny:1", "--to", "line", "--timeout", "0", expect=5)
    assert "0/2 attested, 2 pending" in late.stdout
    assert "the rest converges when it can" in late.stderr
    run("deploy", "tiny:1", "--to", "line", "--timeout", "0", "--min-attested", "0")


def test_a_group_without_history_says_so(run: Run) -> None:
    run("device", "enroll", "cam-1", "--group", "line")
    assert run("history", "line").stdout == "nothing was done to it yet\n"
    assert "wants nothing" in run("status", "line").stdout


def test_devices_come_and_go(run: Run, run_json: RunJson) -> None:
    assert "no devices" in run("devices").stdout
    enrolled = run_json("device", "enroll", "cam-1", "--group", "a", "--label", "site=north")
    assert (enrolled["group"], enrolled["labels"]["site"]) == ("a", "north")
    assert "retire it first" in run("device", "enroll", "cam-1", "--group", "b", expect=4).stderr
    run("device", "enroll", "cam-2", "--group", "b")
    names = [device["name"] for device in run_json("devices", "--label", "site=north")["devices"]]
    assert names == ["cam-1"]
    assert [d["name"] for d in run_json("devices", "--group", "b")["devices"]] == ["cam-2"]
    assert run_json("device", "retire", "cam-1", "--yes") == {"retired": "cam-1", "group": "a"}
    assert [device["name"] for device in run_json("devices")["devices"]] == ["cam-2"]


def test_a_group_goes_when_it_has_no_devices(
    run: Run, run_json: RunJson, onnx_file: Callable[..., Path]
) -> None:
    run("model", "push", "tiny", str(onnx_file()))
    run("device", "enroll", "cam-1", "--group", "lin")
    run("deploy", "tiny", "--to", "lin", "--no-wait")
    assert "group 'lin' has devices: cam-1" in run("group", "remove", "lin", expect=4).stderr
    run("device", "retire", "cam-1")
    assert run_json("group", "remove", "local/lin") == {"removed": "local/lin"}
    assert run_json("status")["groups"] == []
    assert "no group 'lin'" in run("group", "remove", "lin", expect=3).stderr

    run("device", "enroll", "cam-1", "--group", "lin")
    assert run_json("history", "lin")["entries"] == []
    assert run("group", "remove", "lin", "--yes", expect=4).stdout == ""


def test_a_device_that_has_logged_nothing_is_told_of(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    (tmp_path / "edgefleet.toml").write_text(
        '[profiles.default]\nprovider = "local"\n[profiles.default.local]\nsupervise = false\n'
    )
    run("device", "enroll", "cam-1", "--group", "line")
    said = run("device", "log", "cam-1")
    assert (said.stdout, said.stderr) == ("", "cam-1 has logged nothing yet\n")
    assert run_json("device", "log", "cam-1")["lines"] == []


def test_output_goes_only_with_a_dry_run(run: Run) -> None:
    assert "--dry-run" in run("deploy", "x", "--to", "g", "--output", "out", expect=2).stderr
    assert "--dry-run" in run("install", "--output", "out", expect=2).stderr


@pytest.mark.usefixtures("fleet")
def test_a_policy_that_the_channel_cannot_honour_is_refused_before_anything_is_sent(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    root = tmp_path / ".edgefleet" / "fleet"
    before = state_of(root)
    (problem,) = run_json("plan", "tiny:1", "--to", "line", "--per-minute", "5", expect=4)[
        "problems"
    ]
    assert "can't hold a rollout to a policy" in problem
    refused = run("deploy", "tiny:1", "--to", "line", "--stop-after", "5:20", expect=4)
    assert "nothing was sent" in refused.stderr
    assert "cohort" in refused.stderr
    assert state_of(root) == before


@pytest.mark.parametrize(
    "options",
    [
        ("--faster", "2:100"),  # of which rate?
        ("--per-minute", "5", "--faster", "2"),
        ("--per-minute", "5", "--faster", "0.5:10"),
        ("--stop-after", "120:5"),
        ("--stop-after", "x:5"),
    ],
)
@pytest.mark.usefixtures("fleet")
def test_options_that_make_no_policy_are_refused(run: Run, options: tuple[str, ...]) -> None:
    run("plan", "tiny:1", "--to", "line", *options, expect=2)


@pytest.mark.usefixtures("fleet")
def test_one_version_goes_to_many_groups_by_a_pattern(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    for device, group in (("cam-3", "hall-1"), ("cam-4", "hall-2")):
        run("device", "enroll", device, "--group", group, "--label", "target=raspberry-pi-5")
    root = tmp_path / ".edgefleet" / "fleet"
    before = state_of(root)
    run("rollout", "tiny:1", "--to", "hall-*", "--to", "line", "--dry-run", "--output", "out")
    assert state_of(root) == before
    assert {f"groups/{group}/pointer.json" for group in ("hall-1", "hall-2", "line")} <= set(
        actions(written(tmp_path / "out"))
    )
    shown = run("rollout", "tiny:1", "--to", "hall-*").stdout
    assert "2 groups, 2 of them to change; 2 devices" in shown
    assert "given to 2 groups" in shown
    again = run_json("rollout", "tiny:1", "--to", "*")
    assert [one["changed"] for one in again["launch"]["groups"]] == [False, False, True]
    assert again["plan"]["groups"][2]["group"] == "local/line"
    run("rollout", "tiny:1", "--to", "nowhere-*", expect=3)
    run("rollout", "tiny:1", "--to", "*", "--per-minute", "5", expect=4)
