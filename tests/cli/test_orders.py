"""`edgefleet device status`, `rollback` and `capture` on a real device of the local provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

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
