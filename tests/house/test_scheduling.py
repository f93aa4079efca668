"""Tests that share something dear run in one process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import conftest

ROOT = Path(__file__).parents[2]
RECORDS = """
import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(6))
def test_it(number):
    Path(__file__).with_suffix(f".{number}").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""


@pytest.mark.parametrize("file", sorted(conftest.TOGETHER))
def test_what_is_kept_together_is_there(file: str) -> None:
    place = ROOT / file
    assert place.is_dir() if file.endswith("/") else place.is_file()


@pytest.mark.parametrize(
    "file, processes",
    [
        (min(conftest.TOGETHER), 1),
        ("tests/runtime_archive/test_any.py", 1),
        ("tests/test_apart.py", 2),
    ],
)
def test_only_what_is_kept_together_runs_in_one_process(
    tmp_path: Path, file: str, processes: int
) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").touch()
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(RECORDS)
    words = ["-n", "2", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    subprocess.run([sys.executable, "-m", "pytest", *words], cwd=tmp_path, check=True)
    records = [(tmp_path / file).with_suffix(f".{number}").read_text() for number in range(6)]
    assert len(set(records)) == processes
