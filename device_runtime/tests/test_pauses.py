"""Python's garbage collector doesn't hold up a process that serves."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.onnx_models import plus
from device_runtime.tests.standalone.test_serve import serving
from device_runtime.tests.support import Repository
from edgefleet_runtime import collector

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def counting(tmp_path: Path) -> tuple[str, Path]:
    """A folder on the path of a process, and a file that it writes at its end.

    How many objects full collections walk then, and leave alone, and how many collections came
    before these were left.
    """
    folder, counts = tmp_path / "site", tmp_path / "counts"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import atexit, gc, pathlib\n"
        "early = []\n"
        "def note(phase, about):\n"
        "    if phase == 'start' and not gc.get_freeze_count():\n"
        "        early.append(about)\n"
        "gc.callbacks.append(note)\n"
        "def count():\n"
        "    found = len(gc.get_objects()), gc.get_freeze_count(), len(early)\n"
        f"    pathlib.Path({str(counts)!r}).write_text(' '.join(map(str, found)))\n"
        "atexit.register(count)\n"
    )
    return str(folder), counts


def check(counts: Path) -> None:
    walked, left, early = map(int, counts.read_text().split())
    assert left > 20_000
    assert walked < left / 2
    assert early < 30


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


def test_nothing_is_collected_until_a_start_is_over_or_has_failed() -> None:
    with collector.starting():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="no start"), collector.starting():
        raise ValueError("no start")
    assert gc.isenabled()
    try:
        with collector.starting():
            collector.started()
            assert gc.isenabled()
    finally:
        gc.unfreeze()
