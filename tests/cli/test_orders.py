"""`edgefleet device status`, `rollback`, `capture`, `trial` on a real device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edgefleet
from edgefleet.optimization.packaging import bundle_from_onnx
from edgefleet.protocol.release import Budget, Release, ReleaseModel, RuntimeSettings
from tests.cli.conftest import Run, RunJson


@pytest.fixture
def fleet(run: Run, onnx_file: Callable[..., Path]) -> None:
    """A device whose second release serves; it runs as long as a command does."""
    run("device", "enroll", "cam-1", "--group", "line")
    for seed in (0, 1):
        run("model", "push", "tiny", str(onnx_file(seed=seed)))
        run("deploy", f"tiny:{seed + 1}", "--to", "line")


@pytest.mark.usefixtures("fleet")
def test_a_device_is_rolled_back_by_order_and_every_view_says_so(
    run: Run, run_json: RunJson
) -> None:
    answer = run_json("device", "rollback", "cam-1", "--reason", "it sees ghosts", "--yes")
    assert (answer["device"], answer["changed"], answer["number"]) == ("cam-1", True, 2)
    assert (answer["rolled_back"]["by"], answer["rolled_back"]["reason"]) == (
        "tester",
        "it sees ghosts",
    )
    again = run("device", "rollback", "cam-1", "--yes").stdout
    assert again.startswith("nothing changed: cam-1 serves the release before already")

    report = run_json("device", "status", "cam-1")
    assert (report["state"], report["rolled_back"]) == ("rejected", answer["rolled_back"])
    told = "was rolled back on this device by tester"
    shown = run("device", "status", "cam-1").stdout
    assert "cam-1: rejected, pointer #2" in shown
    assert "tiny:1 (fp32) active" in shown
    assert told in shown
    (device,) = run_json("status", "line")["groups"][0]["devices"]
    assert (device["outcome"], told in device["why"]) == ("failed", True)
    why = run_json("why", "cam-1")
    assert (told in why["step"], "any newer pointer" in why["cure"]) == (True, True)


def test_a_rollback_with_nothing_before_it_is_refused_with_a_cure(
    run: Run, onnx_file: Callable[..., Path]
) -> None:
    run("device", "enroll", "cam-1", "--group", "line")
    run("model", "push", "tiny", str(onnx_file()))
    run("deploy", "tiny:1", "--to", "line")
    said = run("device", "rollback", "cam-1", "--yes", expect=3).stderr
    assert "no release ran on this device before" in said
    assert "cure: deploy a release that is known to be good" in said


@pytest.mark.usefixtures("fleet")
def test_a_capture_is_ordered_and_asked_after(run: Run, run_json: RunJson) -> None:
    asked = run_json("device", "capture", "cam-1", "tiny", "--count", "2", "--reason", "odd")
    assert (asked["device"], asked["count"], asked["open"]) == ("cam-1", 2, True)
    shown = run("device", "capture", "cam-1", "tiny", "--order", "an-order-of-mine").stdout
    assert "order an-order-of-mine: 0 of 1 requests, without their inputs" in shown
    assert "ask with --order an-order-of-mine" in shown
    said = run("device", "capture", "cam-1", "faces", expect=3).stderr
    assert "served now: tiny:2" in said


def test_a_bundle_is_tried_and_its_figures_are_told(
    run: Run, run_json: RunJson, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    run("device", "enroll", "cam-1", "--group", "line")
    run("model", "push", "tiny", str(onnx_file()))
    with edgefleet.connect() as fleet:
        model = fleet.registry.get("tiny")
        release = Release(
            models=(ReleaseModel(name="tiny", version="1", bundle=model.digest),),
            settings=RuntimeSettings(budget=Budget(trial_s=0.1)),
        )
        fleet.deploy(release, to="line").wait(timeout_s=120, progress=False)
    bundle_from_onnx(onnx_file(seed=7), tmp_path / "bundle", name="tiny")
    told = run_json("device", "trial", "cam-1", "bundle", "--calls", "5")
    assert (told["device"], told["state"]) == ("cam-1", "done")
    assert (told["figures"][0]["outcome"], told["figures"][0]["calls"]) == ("measured", 5)
    shown = run("device", "trial", "cam-1", "bundle", "--max-bytes", "1").stdout
    assert "fp32" in shown
    assert "bytes to fetch" in shown
    with edgefleet.connect() as fleet:
        assert [model.version for model in fleet.registry.versions("tiny")] == ["1"]


def test_a_device_that_runs_nothing_yet_takes_no_trial(
    run: Run, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    run("device", "enroll", "cam-1", "--group", "line")
    bundle_from_onnx(onnx_file(), tmp_path / "bundle", name="tiny")
    said = run("device", "trial", "cam-1", "bundle", expect=4).stderr
    assert "no pointer has come to this device yet" in said
    assert "cure: deploy something to its group first" in said
