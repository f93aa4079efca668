"""Content addresses."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import InvalidInputError
from edgefleet.protocol import digest as d

if TYPE_CHECKING:
    from pathlib import Path

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4


def test_digest_of_nothing_is_the_published_one() -> None:
    assert d.digest_of(b"") == EMPTY


@given(st.binary(max_size=3000))
def test_stream_and_memory_give_the_same_digest(data: bytes) -> None:
    assert d.digest_of_stream(io.BytesIO(data)) == (d.digest_of(data), len(data))


@pytest.mark.parametrize("size", [0, 1, d.CHUNK_BYTES, d.CHUNK_BYTES + 1])
def test_file_is_hashed_whole_and_progress_adds_up_to_its_size(tmp_path: Path, size: int) -> None:
    data = bytes(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    steps: list[int] = []
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    assert d.digest_of_file(path, progress=steps.append) == (digest, size)
    assert sum(steps) == size


def test_only_what_is_left_in_a_stream_counts() -> None:
    stream = io.BytesIO(b"headbody")
    stream.seek(4)
    assert d.digest_of_stream(stream) == (d.digest_of(b"body"), 4)


def test_digest_gives_the_path_of_an_oci_image_layout() -> None:
    assert d.blob_path(EMPTY) == f"blobs/sha256/{EMPTY[7:]}"
    assert d.hex_of(EMPTY) == EMPTY[7:]
    assert d.short(EMPTY) == "e3b0c44298fc"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        EMPTY[7:],
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY + "\n",
        EMPTY.upper(),
        EMPTY.replace("e3", "g3"),
        EMPTY.replace("sha256", "sha512"),
        "sha256:../../../etc/passwd",
        f"sha256:{'٣' * 64}",
    ],
)
def test_what_is_no_digest_never_becomes_a_path(text: str) -> None:
    with pytest.raises(InvalidInputError, match="not a digest") as refusal:
        d.blob_path(text)
    assert "64 lower-case hexadecimal digits" in str(refusal.value)
