"""A disk that failed is mounted read-only by the kernel: the spool says so, and goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.tests.namespaces import missing, unshared

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif((why_not := missing([])) is not None, reason=str(why_not))


def logged(folder: Path, *how: str) -> str:
    """What the spool of a device logs whose disk is read-only for ten turns, then not any more."""
    program = [sys.executable, "-m", "device_runtime.tests.spool.read_only", str(folder), *how]
    done = subprocess.run(
        unshared(*program), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("how", [(), ("damaged",)], ids=["whole", "damaged"])
def test_a_read_only_disk_is_named_with_its_cure_now_and_then_until_it_takes_something(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    said = logged(tmp_path, *how)
    assert said.count("can't be written: Read-only file system") == 1
    assert said.count("cure: check its disk, and mount it") == 1
