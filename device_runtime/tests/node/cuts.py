"""A device whose power is cut: what runs before and after, where it is cut, what must hold then."""

from __future__ import annotations

import contextlib
import http.client
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import Repository
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.orders import ROLLBACK
from edgefleet.protocol.release import Budget, RuntimeSettings
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.reconciler.memory import MAX_CRASHES, MemoryFile

PADDING = 2_500_000  # bytes; a blob of several chunks


def copy(source: Path, target: Path) -> None:
    """Copy a folder, hard links as such."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


class Template:
    """A device that has run release ``old`` and stopped; and a pointer to ``new``.

    Attributes:
        points: that a process passes from its start to where it ends, and some more.
        settings: of the new release, and of the old one.
    """

    points = 90
    settings = RuntimeSettings()

    def __init__(self, root: Path) -> None:
        self.repository = Repository(root / "fleet")
        self.old = self._release(2, RuntimeSettings())
        self.new = self._release(3, self.settings)
        self.repository.point(self.old)
        self.device = Device(root / "cam-07", self.repository, "--healthy-after", "0")
        with self.device.start():
            self.device.active(self.old)
            self.device.signal(signal.SIGTERM)
            assert self.device.ended() == 0
        self.pointer = self.repository.point(self.new)

    def _release(self, factor: float, settings: RuntimeSettings) -> str:
        return self.repository.release(
            {
                "a": publish(self.repository, factor),
                "b": publish(self.repository, factor + 0.5, padding=PADDING),
            },
            settings=settings,
        )

    def copy(self, root: Path, *arguments: str) -> Device:
        copy(self.device.data, root / "cam-07" / "data")
        return Device(root / "cam-07", self.repository, *arguments)

    def converged(self, device: Device) -> bool:
        """Whether a device has come to where it should; called again and again."""
        report = device.report()
        return report is not None and report.attests(self.new)

    def spent(self, device: Device) -> bool:
        """Whether one more kill could make the device give up what it tries, and rightly so."""
        trial = MemoryFile(device.data).load().trial
        return trial is not None and trial.crashes >= MAX_CRASHES - 2

    def restarted(self, device: Device) -> Rig:
        """What a killed process left, started again: as the old release or the new one."""
        check_blobs(device)
        work = device.root / "after"
        copy(device.data, work / "device")
        rig = Rig(work, repository=self.repository, engine=OnnxRuntimeEngine())
        assert rig.driver.state.running in {self.old, self.new}
        assert rig.factor("b") == {self.old: 2.5, self.new: 3.5}[rig.driver.state.running]
        return rig

    def check(self, device: Device) -> None:
        """What a killed process left starts as old or new, without any source, and converges."""
        rig = self.restarted(device)
        running, a = rig.driver.state.running, rig.factor("a")
        assert (running, a) in {(self.old, 2.0), (self.new, 3.0)}
        assert rig.driver.errors == ()
        rig.channel.offer(self.pointer)
        rig.settle()
        self._check_end(rig)

    def _check_end(self, rig: Rig) -> None:
        assert rig.driver.state.running == self.new
        assert (rig.factor("a"), rig.factor("b")) == (3.0, 3.5)
        assert rig.driver.errors == ()


class Unloading(Template):
    """The new release fits into memory only alone: the old one is unloaded first."""

    settings = RuntimeSettings(memory_max_bytes=5 * PADDING, unload_first=True)

    def _check_end(self, rig: Rig) -> None:
        assert rig.driver.state.running == self.new
        assert (rig.factor("a"), rig.factor("b")) == (3.0, 3.5)
        told = rig.driver.errors
        assert all("unloaded first" in error for error in told)


class GoingBack(Template):
    """The new release breaks its budget with its first request, and is taken back."""

    points = 100
    settings = RuntimeSettings(budget=Budget(max_p99_us=0.001, window=1, trial_s=1000))

    def converged(self, device: Device) -> bool:
        report = device.report()
        if report is None:
            return False
        if report.running == self.new and report.endpoint is not None:
            # It may die meanwhile, or have no such model yet.
            trouble = (OSError, http.client.HTTPException, AssertionError)
            with contextlib.suppress(*trouble), device.client() as client:
                client.factor("a")
        return report.running == self.old and report.state == "rejected"

    def _check_end(self, rig: Rig) -> None:
        rig.factor("a")
        rig.settle()
        assert rig.driver.state.running == self.old
        assert rig.condition == "rejected"
        assert (rig.factor("a"), rig.factor("b")) == (2.0, 2.5)
        assert "broke its budget" in rig.driver.errors[0]

    def check(self, device: Device) -> None:
        """What a killed process left starts as old or new, and ends as old."""
        rig = self.restarted(device)
        rig.channel.offer(self.pointer)
        rig.settle()
        self._check_end(rig)


class Ordering(Template):
    """The new release is rolled back by an operator as soon as it serves."""

    points = 100

    def converged(self, device: Device) -> bool:
        report = device.report()
        if report is None:
            return False
        if report.running == self.new:
            device.order(ROLLBACK)
        return report.rolled_back is not None

    def check(self, device: Device) -> None:
        """What a killed process left starts as old or new; who was answered was told the truth."""
        answered = any((device.outbox / "replies").glob("*.json"))
        rig = self.restarted(device)
        rig.channel.offer(self.pointer)
        rig.settle()
        if answered:
            assert rig.driver.state.order is not None
        due = self.new if rig.driver.state.order is None else self.old
        assert rig.driver.state.running == due
        assert rig.factor("a") == {self.old: 2.0, self.new: 3.0}[due]


def check_blobs(device: Device) -> None:
    """Every blob is what its name says."""
    for path in (device.data / "blobs" / "sha256").iterdir():
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"


class Cut(NamedTuple):
    """A device that was killed.

    ``point`` says at which of the points that it passed; ``converged`` that it had come to where
    it should by then.
    """

    device: Device
    point: int
    converged: bool


def cuts(template: Template, root: Path, seed: random.Random, count: int) -> Iterator[Cut]:
    """Kill a device so many times, each time at a random point of fetch, store, state and swap.

    One that has come to its end is replaced by one that hasn't begun; so is one that was killed on
    trial so often that it would rightly give up the next time.
    """
    device, number = None, 0
    for _ in range(count):
        if device is None:
            number += 1
            device = template.copy(root / str(number))
        point = seed.randint(1, template.points)
        device.start(fault=f"*:{point}")
        converged = _dead_or_converged(template, device)
        if converged:
            device.kill()
        else:
            assert device.ended() == -signal.SIGKILL, device.log
        yield Cut(device, point, converged)
        shutil.rmtree(device.root / "after", ignore_errors=True)
        if converged or template.spent(device):
            shutil.rmtree(device.root)
            device = None


def _dead_or_converged(template: Template, device: Device) -> bool:
    def state() -> str | None:
        assert device.process is not None
        if device.process.poll() is not None:
            return "dead"
        return "converged" if template.converged(device) else None

    return bool(eventually(state, device.log) == "converged")
