from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.errors import StorageFullError
from edgefleet_runtime.store.durable import write_durably


def test_content_is_replaced_and_nothing_else_left(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_durably(path, b"old")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["state.json"]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_durably(path, b"old")
    (tmp_path / ".state.json.partial").symlink_to("/dev/full")
    with pytest.raises(StorageFullError, match=r"state\.json"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["state.json"]


def test_other_trouble_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as caught:
        write_durably(tmp_path / "absent" / "state.json", b"new")
    assert caught.value.errno == errno.ENOENT


_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from edgefleet_runtime.store.durable import write_durably
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_durably(Path(sys.argv[1]), b"n" * 5000)
except OSError:
    sys.exit(7)
"""


def test_a_disk_that_takes_a_part_leaves_the_old_content(tmp_path: Path) -> None:
    # The limit stands for a disk that fills up within the file: the first write is a short one.
    path = tmp_path / "state.json"
    write_durably(path, b"old")
    done = subprocess.run([sys.executable, "-c", _ON_A_FULL_DISK, path], check=False)
    assert done.returncode == 7
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
