"""A device whose power is cut: what runs before and after, where it is cut, what must hold then."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import Repository, eventually
from edgefleet.protocol.digest import digest_of
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.reconciler.memory import MAX_CRASHES, MemoryFile

PADDING = 2_500_000  # bytes; a blob of several chunks

POINTS = 90  # that a process passes from its start to the new release, and some more


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


class Cut(NamedTuple):
    """A device that was killed.

    ``point`` says at which of the points that it passed; ``converged`` that it served the new
    release by then.
    """

    device: Device
    point: int
    converged: bool


def cuts(template: Template, root: Path, seed: random.Random, count: int) -> Iterator[Cut]:
    """Kill a device so many times, each time at a random point of fetch, store, state and swap.

    One that has come to the new release is replaced by one that hasn't begun; so is one that was
    killed on trial twice, because it would rightly give the new release up the next time.
    """
    device, number = None, 0
    for _ in range(count):
        if device is None:
            number += 1
            device = template.copy(root / str(number))
        point = seed.randint(1, POINTS)
        device.start(fault=f"*:{point}")
        converged = _dead_or_converged(device, template.new)
        if converged:
            device.kill()
        else:
            assert device.ended() == -signal.SIGKILL, device.log
        yield Cut(device, point, converged)
        shutil.rmtree(device.root / "after")
        trial = MemoryFile(device.data).load().trial
        if converged or (trial is not None and trial.crashes >= MAX_CRASHES - 2):
            shutil.rmtree(device.root)
            device = None


def _dead_or_converged(device: Device, release: str) -> bool:
    def state() -> str | None:
        assert device.process is not None
        if device.process.poll() is not None:
            return "dead"
        report = device.report()
        return "converged" if report and report.attests(release) else None

    return bool(eventually(state, timeout_s=60.0, what=device.log) == "converged")
