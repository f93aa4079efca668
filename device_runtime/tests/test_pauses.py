"""Python's garbage collector doesn't hold up a process that serves."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.onnx_models import plus
from device_runtime.tests.standalone.test_serve import serving
from device_runtime.tests.support import Repository

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def counting(tmp_path: Path) -> tuple[str, Path]:
    """A folder that has a process write at its end how many objects collections walk, and leave."""
    folder, counts = tmp_path / "site", tmp_path / "counts"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import atexit, gc, pathlib\n"
        "def count():\n"
        "    walked = len(gc.get_objects())\n"
        f"    pathlib.Path({str(counts)!r}).write_text(f'{{walked}} {{gc.get_freeze_count()}}')\n"
        "atexit.register(count)\n"
    )
    return str(folder), counts


def check(counts: Path) -> None:
    walked, left = map(int, counts.read_text().split())
    assert left > 20_000
    assert walked < left / 2


def test_collections_of_a_server_leave_alone_what_it_started_with(
    tmp_path: Path, counting: tuple[str, Path]
) -> None:
    folder, counts = counting
    file = plus(tmp_path / "one.onnx", 1)
    with serving("--model", f"one={file}", PYTHONPATH=folder) as (_, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    check(counts)


def test_collections_of_a_device_leave_alone_what_it_started_with(
    tmp_path: Path, counting: tuple[str, Path]
) -> None:
    folder, counts = counting
    repository = Repository(tmp_path / "repository")
    release = repository.release({"digits": publish(repository, 2)})
    repository.point(release)
    device = Device(tmp_path / "device", repository)
    device.environment = {"PYTHONPATH": folder}
    with device:
        device.active(release)
        device.signal(signal.SIGTERM)
        assert device.ended() == 0
    check(counts)
