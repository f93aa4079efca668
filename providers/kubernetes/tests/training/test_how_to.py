"""The page on training keeps its word: its files are written as it says, and its lines run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgefleet.testing.pages import lay_out, printed

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "train-on-kubernetes.md"


def test_a_reader_of_the_page_trains_and_pushes(tmp_path: Path, told: dict[str, Any]) -> None:
    lay_out(PAGE, tmp_path, provider="kubernetes", settings=told)
    lines = printed("lines.py", tmp_path)
    assert sum(line.startswith("edgefleet-metric") for line in lines) == 30
    assert lines[-1].endswith("model.onnx")
