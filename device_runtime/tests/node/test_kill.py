"""Power cuts: the process is killed at every point of fetch, store, state, swap and spool.

After each, what is on the disk must start as the old release or the new one, as a whole, without
any source; every blob must be what its name says; and with the source back it must converge.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from device_runtime.tests.node.device import RECORD, Device, publish
from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import Repository, eventually
from edgefleet.protocol.digest import digest_of
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

PADDING = 2_500_000  # bytes; a blob of several chunks

# A point, and the how-manieth time: restoring the old release (two models) passes some of them too,
# and the state is written at the start, for the pointer, for the trial and for the swap.
POINTS = (
    "fetch.before",
    "fetch.chunk",
    "fetch.chunk:6",
    "fetch.chunk:8",
    "fetch.complete:3",
    "fetch.synced",
    "fetch.renamed",
    "fetch.renamed:6",
    "store.laid-out:3",
    "model.verified:4",
    "model.loaded:3",
    "model.warmed:3",
    "model.tested:4",
    "pointer.taken",
    *(f"state.saving:{n}" for n in (2, 3, 4)),
    *(f"state.json.written:{n}" for n in (1, 2, 3, 4)),
    *(f"state.json.renamed:{n}" for n in (1, 2, 3, 4)),
    "swap.saved",
    "swap.done",
)


def copy(source: Path, target: Path) -> None:
    """Copy a folder, hard links as such."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


class Template:
    """A device that has run release ``old`` and stopped; and a pointer to ``new``."""

    def __init__(self, root: Path) -> None:
        self.repository = Repository(root / "fleet")
        self.old = self._release(2)
        self.new = self._release(3)
        self.repository.point(self.old)
        self.device = Device(root / "cam-07", self.repository, "--healthy-after", "0")
        with self.device.start():
            self.device.active(self.old)
            self.device.signal(signal.SIGTERM)
            assert self.device.ended() == 0
        self.pointer = self.repository.point(self.new)

    def _release(self, factor: float) -> str:
        return self.repository.release(
            {
                "a": publish(self.repository, factor),
                "b": publish(self.repository, factor + 0.5, padding=PADDING),
            }
        )

    def copy(self, root: Path, *arguments: str) -> Device:
        copy(self.device.data, root / "cam-07" / "data")
        return Device(root / "cam-07", self.repository, *arguments)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("template"))


def check(template: Template, device: Device) -> None:
    """What a killed process left starts as old or new, without any source, and converges."""
    for path in (device.data / "blobs" / "sha256").iterdir():
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"
    work = device.root / "after"
    copy(device.data, work / "device")
    rig = Rig(work, repository=template.repository, engine=OnnxRuntimeEngine())
    served = (rig.factor("a"), rig.factor("b"))
    assert (rig.driver.state.running, served) in {
        (template.old, (2.0, 2.5)),
        (template.new, (3.0, 3.5)),
    }
    assert rig.driver.errors == ()
    rig.channel.offer(template.pointer)
    rig.settle()
    assert rig.driver.state.running == template.new
    assert (rig.factor("a"), rig.factor("b")) == (3.0, 3.5)
    assert rig.driver.errors == ()


@pytest.mark.parametrize("fault", POINTS)
def test_a_power_cut_leaves_the_old_release_or_the_new_one(
    template: Template, tmp_path: Path, fault: str
) -> None:
    device = template.copy(tmp_path)
    device.start(fault=fault)
    assert device.ended() == -signal.SIGKILL
    check(template, device)


def test_a_power_cut_while_room_is_made_leaves_the_old_release(
    template: Template, tmp_path: Path
) -> None:
    device = template.copy(tmp_path, "--store-max-bytes", str(2 * PADDING + 150_000))
    leftover = b"x" * 200_000  # of some release before
    (device.data / "blobs" / "sha256" / digest_of(leftover)[7:]).write_bytes(leftover)
    device.start(fault="store.evicted")
    assert device.ended() == -signal.SIGKILL
    check(template, device)


def test_power_cut_after_power_cut_the_device_still_converges(
    template: Template, tmp_path: Path
) -> None:
    device = template.copy(tmp_path)
    for fault in ("fetch.chunk", "fetch.renamed:2", "fetch.chunk:4", "swap.saved", "fetch.before"):
        device.start(fault=fault)
        if fault == "fetch.before":  # nothing is left to fetch
            break
        assert device.ended() == -signal.SIGKILL
    report = device.active(template.new)
    assert report.health.starts == 6
    assert report.health.bytes_fetched == 0
    device.kill()


@pytest.mark.parametrize("fault", ["spool.appended", "spool.closed", "spool.uploaded"])
def test_a_power_cut_in_the_spool_loses_no_prediction_and_repeats_none(
    tmp_path: Path, fault: str
) -> None:
    repository = Repository(tmp_path / "fleet")
    release = repository.release({"digits": publish(repository, 2)}, telemetry=RECORD)
    repository.point(release)
    device = Device(tmp_path / "cam-07", repository)
    device.start(fault=fault).active(release)
    with device.client() as client:
        for _ in range(6):
            client.factor()
    if fault != "spool.appended":  # it dies when it closes what is open
        device.signal(signal.SIGTERM)
    assert device.ended() == -signal.SIGKILL
    with device.start():
        device.active(release)
        eventually(lambda: device.recorded() == 6)
