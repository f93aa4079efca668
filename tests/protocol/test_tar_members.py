from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.tar_members import unpack_member


def unpack(to: Path, *members: tarfile.TarInfo) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for member in members:
            made.addfile(member, io.BytesIO(b"x" * member.size))
    file.seek(0)
    with tarfile.open(fileobj=file) as opened:
        for member in opened:
            unpack_member(opened, member, to)


def member(name: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o600) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.mode, found.linkname = kind, mode, "/etc/passwd"
    found.size = 3 if kind == tarfile.REGTYPE else 0
    return found


def test_files_and_folders_come_with_their_names(tmp_path: Path) -> None:
    unpack(tmp_path, member("a/", tarfile.DIRTYPE), member("a/b/run", mode=0o4700), member("c"))
    assert (tmp_path / "a/b/run").read_bytes() == b"xxx"
    assert [oct((tmp_path / name).stat().st_mode)[-4:] for name in ("a/b/run", "c")] == [
        "0755",
        "0644",
    ]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//x", "", "a\\x"])
def test_nothing_lies_outside(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(InvalidInputError, match="unsafe"):
        unpack(inner, member(name))
    assert list(tmp_path.rglob("*")) == [inner]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(InvalidInputError, match="no plain file"):
        unpack(tmp_path, member("link", kind))
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        unpack(tmp_path, member("a"), member("a"))
