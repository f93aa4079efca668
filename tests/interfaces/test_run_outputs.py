"""Outputs of a run on this machine: whole, or not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.run_outputs import arriving, drop

if TYPE_CHECKING:
    from pathlib import Path


def test_outputs_that_arrived_go_without_a_trace_and_may_arrive_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run-1"
    drop(folder)  # nothing arrived yet
    for text in ("first", "second"):
        with arriving(folder, "s3://outputs") as fresh:
            fresh.place("model.onnx", 5).write_text(text)
        assert (folder / "model.onnx").read_text() == text
        drop(folder)
        assert list(folder.parent.iterdir()) == []
    drop(folder)
