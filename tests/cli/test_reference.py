"""The written reference is the one that the commands give."""

from __future__ import annotations

from pathlib import Path

from edgefleet.cli.reference import render
from edgefleet.testing.kit.samples import Content

FILE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def test_the_reference_is_current() -> None:
    made = "python -m edgefleet.cli.reference > docs/reference/cli.md"
    written = Content.of(FILE.read_bytes())
    assert written == Content.of(render().encode()), f"renew it with: {made}"
