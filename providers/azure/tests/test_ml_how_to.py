"""The page on training keeps its word: its files are written as it says, and its lines run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefleet_azure.settings import AzureSettings

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "train-on-azure-ml.md"
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, settings: AzureSettings) -> Path:
    """A reader's folder: the page's files, data, and a profile for the mock cloud."""
    for name, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "points").mkdir()
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    y = x @ np.array([[1], [-2]], dtype=np.float32)
    np.savez(tmp_path / "points" / "points.npz", x=x, y=y)
    told = settings.model_dump(mode="json", exclude_none=True)
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in told.items())
    profile = f'[profiles.plant-a]\nprovider = "azure"\n[profiles.plant-a.azure]\n{table}\n'
    (tmp_path / "edgefleet.toml").write_text(profile, encoding="utf-8")
    return tmp_path


def printed(script: str, folder: Path) -> list[str]:
    here = {key: value for key, value in os.environ.items() if not key.startswith("EDGEFLEET_")}
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=here, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_reader_of_the_page_trains_pushes_and_automates(folder: Path) -> None:
    told = printed("lines.py", folder)
    assert sum(line.startswith("edgefleet-metric") for line in told) == 30
    assert told[-1].endswith("model.onnx")
    passed, *_ = printed("more_lines.py", folder)
    assert passed == "True line:2"
