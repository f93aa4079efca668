"""Automating with a trainer that can't."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgefleet
from edgefleet.errors import UnsupportedError


def test_a_trainer_that_cannot_automate_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("", encoding="utf-8")
    gate = edgefleet.Gate(metric="accuracy", at_least=0.9)
    with edgefleet.connect() as fleet, pytest.raises(UnsupportedError, match="CanAutomate"):
        fleet.automate("train.py", evaluate="train.py", gate=gate, model="digits")
