"""Devices whose power is cut while they improve what serves: a variant on trial, a build."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from device_runtime.tests.building_simulator import BUILT, INTERIM, install
from device_runtime.tests.node.cuts import Template, check_blobs, copy
from device_runtime.tests.node.device import Device, publish, times, times_with_needless_work
from device_runtime.tests.support import Repository, details
from edgefleet.protocol.documents import decode
from edgefleet.protocol.release import RuntimeSettings
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.engines.cache import KEY, EngineCache
from edgefleet_runtime.reconciler.timings import FILE, MAX_TRIES, Timings

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.report import ModelReport

OPTIONS = ("--healthy-after", "0", "--label", "target=any")


class Trying(Template):
    """A good release whose slower variant serves; the faster one is there to be tried."""

    points = 45

    def __init__(self, root: Path) -> None:
        self.repository = Repository(root / "fleet")
        self.environment: dict[str, str] = {}
        self.new = self._publish(root)
        self.repository.point(self.new)
        self.device = Device(root / "cam-07", self.repository, *OPTIONS, "--trial-bytes", "0")
        self.device.environment = self.environment
        with self.device.start():
            self.device.active(self.new)
            good = f'"good":"{self.new}"'
            eventually(lambda: good in (self.device.data / "state.json").read_text())
            self.device.signal(signal.SIGTERM)
            assert self.device.ended() == 0

    def _publish(self, root: Path) -> str:
        bundle = self.repository.bundle_of(
            [
                ({"m.onnx": model}, details(2, entry="m.onnx", variant=precision), precision, ())
                for precision, model in (("fp32", times_with_needless_work(2)), ("int8", times(2)))
            ]
        )
        settings = RuntimeSettings(trial_bytes=1_000_000)
        return self.repository.release({"digits": bundle}, settings=settings)

    def copy(self, root: Path, *arguments: str) -> Device:
        copy(self.device.data, root / "cam-07" / "data")
        made = Device(root / "cam-07", self.repository, *OPTIONS, *arguments)
        made.environment = self.environment
        return made

    def spent(self, device: Device) -> bool:
        try:
            records = decode(Timings, (device.data / FILE).read_bytes()).records
        except FileNotFoundError:
            return False
        return any(record.tries >= MAX_TRIES - 1 for record in records)

    def converged(self, device: Device) -> bool:
        about = model(device)
        return about is not None and about.variant == "int8" and about.why != ""

    def check(self, device: Device) -> None:
        """What a killed process left serves the release, and comes to its end."""
        check_blobs(device)
        copy(device.data, device.root / "after" / "data")
        after = Device(device.root / "after", self.repository, *OPTIONS)
        after.environment = self.environment
        with after.start():
            after.active(self.new)
            with after.client() as client:
                assert client.factor() == 2
            eventually(lambda: self.converged(after), after.log)
            with after.client() as client:  # the server has let an idle connection go by now
                assert client.factor() == 2
            report = after.report()
            assert report is not None
            assert report.errors == ()


class Building(Trying):
    """A good release that the next best provider serves; its engine is there to be built."""

    points = 35

    def _publish(self, root: Path) -> str:
        go = root / "go"
        go.touch()
        self.environment = install(root / "packages", go=go)
        return self.repository.release({"digits": publish(self.repository, 2)})

    def copy(self, root: Path, *arguments: str) -> Device:
        made = super().copy(root, *arguments)
        for name in ("engines", FILE):  # as they were before anything was built
            path = made.data / name
            if path.is_dir():
                for entry in EngineCache(path).entries():
                    EngineCache(path).remove(entry)
            else:
                path.unlink(missing_ok=True)
        return made

    def converged(self, device: Device) -> bool:
        about = model(device)
        return about is not None and about.providers == (BUILT,)

    def check(self, device: Device) -> None:
        """No engine is there that isn't whole, and the device comes to its end."""
        folder = device.data / "engines"
        cache = EngineCache(folder)
        keys = [path.name for path in folder.iterdir()] if folder.exists() else []
        whole = cache.entries()
        assert {key for key in keys if KEY.match(key)} == whole.keys()
        about = model(device)
        assert about is None or about.providers in {(BUILT,), (INTERIM,)}
        super().check(device)


def model(device: Device) -> ModelReport | None:
    """What a device says of its only model, if it serves it."""
    report = device.report()
    active = [m for m in report.models if m.state == "active"] if report else []
    return active[0] if active else None
