"""A take of a stick that is stopped anywhere keeps whole files, and the next brings the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(sys.platform != "linux", reason="it forks")
@pytest.mark.parametrize("how", ["killed", "interrupted", "pulled"])
def test_a_take_may_be_stopped_at_each_thing_that_it_does(tmp_path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "providers.gateway.tests.stopped_import", str(tmp_path), how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
