"""`edgefleet targets` and the page that is made of the same table."""

from __future__ import annotations

from pathlib import Path

from edgefleet.cli.targets_page import render
from edgefleet.protocol.hardware import BUILTIN
from edgefleet.testing.kit.samples import Content
from tests.cli.conftest import Run, RunJson

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "targets.md"


def test_the_page_is_current() -> None:
    made = "python -m edgefleet.cli.targets_page > docs/reference/targets.md"
    assert Content.of(PAGE.read_bytes()) == Content.of(render().encode()), f"renew it with: {made}"


def test_the_page_cites_every_source() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for target in BUILTIN:
        assert all(f"<{source}>" in page for source in (target.source, *target.sources))


def test_targets_are_listed_with_memory_engine_and_status(run: Run, run_json: RunJson) -> None:
    names = [target["name"] for target in run_json("targets")["targets"]]
    assert names == [target.name for target in BUILTIN]
    lines = run("targets").stdout.splitlines()
    (nano,) = (line for line in lines if line.startswith("jetson-nano "))
    assert "2 to 4 GiB" in nano
    assert "external engine" in nano
    assert nano.endswith("untested")


def test_one_target_is_shown_with_why_and_sources(run: Run, run_json: RunJson) -> None:
    shown = run("targets", "jetson-nano").stdout
    assert "opset        13 or lower" in shown
    assert "its Python too old" in shown
    assert "release/8.2-GA/docs/operators.md" in shown
    facts = run_json("targets", "jetson-orin-nano")
    assert facts["kin"] == ["jetson-orin"]
    assert facts["sources"]


def test_an_unknown_target_is_refused_with_those_there_are(run: Run) -> None:
    said = run("targets", "abacus", expect=3).stderr
    assert "no hardware target 'abacus'" in said
    assert "raspberry-pi-5" in said
