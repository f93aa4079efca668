"""Plain files: whole or not there, checked before they are trusted."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import IntegrityError, InvalidInputError, StorageFullError
from edgefleet.protocol import files as f
from edgefleet.protocol.bundle import WEIGHT_MEDIA_TYPE, Descriptor
from edgefleet.protocol.digest import CHUNK_BYTES, digest_of


def about(data: bytes) -> Descriptor:
    return Descriptor(media_type=WEIGHT_MEDIA_TYPE, digest=digest_of(data), size=len(data))


def consumed(data: bytes, due: bytes) -> bytes:
    stream = io.BytesIO(data)
    return b"".join(bytes(chunk) for chunk in f.checked_chunks(stream, about(due), name="x"))


@given(st.binary(max_size=50))
def test_sound_blob_comes_through_whole(data: bytes) -> None:
    assert consumed(data, data) == data
    f.check_bytes(data, about(data))


def test_blob_of_many_chunks_comes_through_whole() -> None:
    data = bytes(2 * CHUNK_BYTES + 1)
    assert consumed(data, data) == data


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_other_bytes_are_refused(data: bytes, due: bytes) -> None:
    if data == due:
        return
    with pytest.raises(IntegrityError, match=r"blob sha256:[0-9a-f]{64} \(x\)"):
        consumed(data, due)
    with pytest.raises(IntegrityError):
        f.check_bytes(data, about(due))


def test_endless_blob_is_refused_once_it_is_too_long() -> None:
    class Endless(io.RawIOBase):
        served = 0

        def readinto(self, buffer: object) -> int:
            count = len(memoryview(buffer))  # type: ignore[arg-type]
            self.served += count
            return count

    stream = Endless()
    with pytest.raises(IntegrityError, match="longer than the 3 bytes it should have"):
        list(f.checked_chunks(stream, about(b"abc")))  # type: ignore[arg-type]
    assert stream.served <= 8


def test_written_file_replaces_the_old_one(tmp_path: Path) -> None:
    f.write_whole(tmp_path / "a", b"old")
    f.write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    f.write_whole(tmp_path / ("a" * 255), b"x")


def test_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    f.write_whole(tmp_path / "a", b"old")

    def write() -> None:
        with f.replacing(tmp_path / "a") as partial:
            partial.write_bytes(b"ne")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(StorageFullError, match=r"no room left for .*a\n"):
        write()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_full_disk_is_the_builtin_error_too(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no room left"), f.translate_full(tmp_path):
        raise OSError(errno.EDQUOT, "quota")


def test_real_full_device_is_translated(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageFullError), f.translate_full(full):
        full.write_bytes(b"x")


def test_place_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    f.place(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"b"


def test_place_does_not_carry_links_on(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc/hostname")
    with pytest.raises(InvalidInputError, match="a is a link or no plain file"):
        f.place(tmp_path / "a", tmp_path / "b")
    assert not os.path.lexists(tmp_path / "b")


def test_open_refuses_a_link_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    with pytest.raises(InvalidInputError, match="a is a symbolic link"):
        f.open_plain(tmp_path / "a")


def test_lines_follow_what_a_crash_tore(tmp_path: Path) -> None:
    path = tmp_path / "events"
    f.append_lines(path, b"one\n")
    with path.open("ab") as stream:
        stream.write(b"tw")
    f.append_lines(path, b"three\nfour\n")
    f.append_lines(path, b"five\n")
    assert path.read_bytes() == b"one\ntw\nthree\nfour\nfive\n"


_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from edgefleet.protocol.files import append_lines
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    append_lines(Path(sys.argv[1]), b"x" * 5000 + b"\\n")
except OSError:
    sys.exit(7)
"""


def test_lines_that_a_disk_takes_in_part_are_told(tmp_path: Path) -> None:
    # The limit stands for a disk that fills up within the lines: the first write is a short one.
    path = tmp_path / "events"
    done = subprocess.run([sys.executable, "-c", _ON_A_FULL_DISK, path], check=False)
    assert done.returncode == 7
    f.append_lines(path, b"after\n")
    assert path.read_bytes().split(b"\n")[1:] == [b"after", b""]
