"""The page on training keeps its word: its files are written as it says, and its lines run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "train-on-kubernetes.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, told: dict[str, Any]) -> Path:
    """A reader's folder: the page's files, data, and a profile for the mock cluster."""
    for name, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "points").mkdir()
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    y = x @ np.array([[1], [-2]], dtype=np.float32)
    np.savez(tmp_path / "points" / "points.npz", x=x, y=y)
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in told.items())
    profile = (
        f'[profiles.plant-a]\nprovider = "kubernetes"\n[profiles.plant-a.kubernetes]\n{table}\n'
    )
    (tmp_path / "edgefleet.toml").write_text(profile, encoding="utf-8")
    return tmp_path


def test_a_reader_of_the_page_trains_and_pushes(folder: Path) -> None:
    here = {key: value for key, value in os.environ.items() if not key.startswith("EDGEFLEET_")}
    done = subprocess.run(
        [sys.executable, "lines.py"],
        cwd=folder,
        env=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert sum(line.startswith("edgefleet-metric") for line in told) == 30
    assert told[-1].endswith("model.onnx")
