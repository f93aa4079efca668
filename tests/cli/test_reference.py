"""The written reference is the one that the commands give."""

from __future__ import annotations

from pathlib import Path

from edgefleet.cli.reference import render

FILE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def test_the_reference_is_current() -> None:
    made = "python -m edgefleet.cli.reference > docs/reference/cli.md"
    assert FILE.read_text(encoding="utf-8") == render(), f"renew it with: {made}"
