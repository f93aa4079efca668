"""Automating with a trainer that can't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefleet
from edgefleet.errors import InvalidInputError, UnsupportedError

PRINTS = "import os\nprint(os.environ['EDGEFLEET_PARAMS'])\n"


def test_a_trainer_that_cannot_automate_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("", encoding="utf-8")
    gate = edgefleet.Gate(metric="accuracy", at_least=0.9)
    with edgefleet.connect() as fleet, pytest.raises(UnsupportedError, match="CanAutomate"):
        fleet.automate("train.py", evaluate="train.py", gate=gate, model="digits")


def test_numpy_s_scalars_reach_the_script_as_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(PRINTS, encoding="utf-8")
    params = {"epochs": np.int64(5), "rate": np.float32(0.5), "deep": np.bool_(True), "by": "adam"}
    with edgefleet.connect() as fleet:
        run = fleet.train("train.py", params=params).wait()
        assert json.loads("".join(run.logs())) == {
            "epochs": 5,
            "rate": 0.5,
            "deep": True,
            "by": "adam",
        }
        assert type(run.status.params["epochs"]) is int


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, np.zeros(3)])
def test_a_parameter_that_is_no_scalar_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("", encoding="utf-8")
    with (
        edgefleet.connect() as fleet,
        pytest.raises(InvalidInputError, match=r"parameter 'layers' is a (list|dict|ndarray)\n"),
    ):
        fleet.train("train.py", params={"layers": value})
