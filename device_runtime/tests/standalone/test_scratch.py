"""The private folder of a server: whose it is, and when it goes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import CancelledError, EdgeFleetError
from edgefleet_runtime.standalone.scratch import Scratch

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_killed_server_left_is_removed_and_a_living_ones_stays(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from edgefleet_runtime.standalone.scratch import Scratch\n"
        "(Scratch(Path(sys.argv[1])).folder() / 'model').write_bytes(b'x')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (dead,) = tmp_path.iterdir()
    with Scratch(tmp_path) as living:
        mine = living.folder()
        assert not dead.exists()
        with Scratch(tmp_path) as other:
            other.folder()
            assert mine.is_dir()
            assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_nobody_else_looks_into_it_and_it_is_not_made_before_it_is_needed(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        assert list(tmp_path.iterdir()) == []
        folder = scratch.folder()
        for path in (folder, folder.parent):
            assert path.stat().st_mode & 0o077 == 0
            assert path.stat().st_uid == os.geteuid()


def test_a_place_that_can_not_be_written_is_named_with_the_cure(tmp_path: Path) -> None:
    with (
        Scratch(tmp_path / "absent") as scratch,
        pytest.raises(EdgeFleetError, match="TMPDIR"),
    ):
        scratch.folder()


def test_nothing_is_made_any_more_once_all_is_removed(tmp_path: Path) -> None:
    with Scratch(tmp_path) as scratch:
        scratch.folder()
    with pytest.raises(CancelledError):
        scratch.folder({"late": b"x"})
    scratch.close()
    assert list(tmp_path.iterdir()) == []
