"""A device without a process: a driver over a real store and table, with a fake engine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from device_runtime.tests.support import Clock, FakeEngine, MemoryChannel, Repository, X
from edgefleet.errors import CancelledError, UnsupportedError
from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.orders import TrialAnswer, TrialFigures
from edgefleet.protocol.pointer import Pointer
from edgefleet.protocol.report import ModelReport
from edgefleet_runtime.engines.base import Engine
from edgefleet_runtime.engines.build import Build
from edgefleet_runtime.engines.cache import EngineCache
from edgefleet_runtime.reconciler.acquire import Acquirer
from edgefleet_runtime.reconciler.candidates import ranked
from edgefleet_runtime.reconciler.driver import Driver
from edgefleet_runtime.reconciler.improve import Improver
from edgefleet_runtime.reconciler.machine import condition
from edgefleet_runtime.reconciler.memory import MemoryFile
from edgefleet_runtime.reconciler.ordered_trial import Means, OrderedTrials
from edgefleet_runtime.reconciler.rack import Rack
from edgefleet_runtime.reconciler.slot import Workbench
from edgefleet_runtime.reconciler.timings import TimingsFile
from edgefleet_runtime.reconciler.trial import Trial
from edgefleet_runtime.reconciler.trial_file import TrialFile
from edgefleet_runtime.reconciler.tryout import Request
from edgefleet_runtime.reconciler.tryout_process import measured
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.store.blobs import BlobStore
from edgefleet_runtime.store.fetch import Fetcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.reconciler.improve import StartBuild
    from edgefleet_runtime.reconciler.shadow import OnCompared


class InProcess:
    """A measurement that is done when the test says so."""

    def __init__(self, request: Request, engine: Engine) -> None:
        self.request = replace(request, share=1.0)
        self.ready = self.stopped = False
        self._engine = engine

    def figures(self) -> TrialFigures | None:
        return measured(self.request, engine=self._engine) if self.ready else None

    def stop(self) -> None:
        self.stopped = True


class Rig:
    """One start of a device's reconciler; make another over the same folder for the next start."""

    def __init__(
        self,
        root: Path,
        *,
        channel: MemoryChannel | None = None,
        repository: Repository | None = None,
        fleet: str | None = None,
        labels: dict[str, str] | None = None,
        store_max_bytes: int = 1 << 30,
        engine: Engine | None = None,
        memory_max_bytes: int | None = None,
        trial_max_bytes: int | None = None,
        start_build: StartBuild | None = None,
        on_compared: OnCompared = lambda *_: None,
    ) -> None:
        self.repository = repository or Repository(root / "fleet")
        self.root = root / "device"
        self.channel = channel or MemoryChannel()
        self.clock = Clock()
        self.engine = FakeEngine()
        used = engine or self.engine
        self.table = ModelTable()
        self.told: list[HealthEvent] = []
        self.on_serve: list[Callable[[], object]] = []
        self.store = BlobStore(self.root, store_max_bytes)
        self.fetcher = Fetcher(self.store, pause=lambda _: None, check=self.check, tries=2)
        self.timings = TimingsFile(self.root, "this machine")
        acquirer = Acquirer(
            self.store,
            self.fetcher,
            labels=labels or {},
            formats=FakeEngine.formats,
            rank=partial(ranked, record_of=lambda c: self.timings.get(c.variant.manifest.digest)),
        )
        bench = Workbench(self.store, lambda _: used, self.check)
        self.cache = EngineCache(self.root / "engines")
        self.rack = Rack(
            self.store,
            acquirer,
            bench,
            self.table,
            memory_max_bytes=memory_max_bytes,
            engine_cache=self.cache.root,
            on_serve=self._serves,
            on_compared=on_compared,
        )
        improver = Improver(
            rack=self.rack,
            acquirer=acquirer,
            timings=self.timings,
            trial=Trial(healthy_after_s=20.0, clock=self.clock, alarm=self.channel.wake),
            start_build=start_build or Build,
            cache=self.cache,
            trial_max_bytes=trial_max_bytes,
            pause=lambda _: self.check(),
            clock=self.clock,
        )
        self.tryouts: list[InProcess] = []
        trials = OrderedTrials(
            Means(
                store=self.store,
                fetcher=self.fetcher,
                acquirer=acquirer,
                bench=bench,
                engine_for=self._engine_for,
                memory_left=lambda: self.rack.memory_left,
                start=self._start_tryout,
                max_bytes=trial_max_bytes,
            ),
            TrialFile(self.root),
            about=TrialAnswer(id="", bundle="", state="waiting", machine="this machine"),
            clock=self.clock,
            wake=self.channel.wake,
        )
        self.driver = Driver(
            device="cam-07",
            fleet=fleet,
            channel=self.channel,
            rack=self.rack,
            improver=improver,
            trials=trials,
            memory_file=MemoryFile(self.root),
            on_event=self.told.append,
            clock=self.clock,
        )
        self.driver.restore()

    def _engine_for(self, model_format: str) -> Engine:
        if model_format not in FakeEngine.formats:
            raise UnsupportedError(f"no installed engine opens {model_format!r} files")
        return self.engine

    def _start_tryout(self, request: Request) -> InProcess:
        self.tryouts.append(InProcess(request, self.engine))
        return self.tryouts[-1]

    def _serves(self) -> None:
        for tell in self.on_serve:
            tell()

    def check(self) -> None:
        if self.channel.changed:
            raise CancelledError("the pointer may have changed")

    def settle(self) -> None:
        """Turn until there is nothing left to do."""
        for _ in range(200):
            self.driver.poll()
            if not self.driver.step():
                return
        raise AssertionError(f"never settles: {self.driver.state}")

    def improve(self) -> None:
        """Let what serves count as good, and turn until nothing more makes it faster."""
        for _ in range(1000):
            self.clock.now += 30.0
            self.driver.poll()
            if not self.driver.step() and not self.driver.improve():
                return
        raise AssertionError(f"never done: {self.driver.models()}")

    def deploy(self, release: str, **options: Any) -> Pointer:
        """Give the device a pointer to a release and let it settle."""
        pointer = self.repository.pointer(release, **options)
        self.channel.offer(pointer)
        self.settle()
        return pointer

    def infer(self, name: str = "digits", x: NDArray[Any] = X) -> NDArray[Any]:
        with self.table.lease(name) as served:
            outputs, _ = served.infer({"x": x})
        return outputs["y"]

    def factor(self, name: str = "digits") -> float:
        """What the model served under a name multiplies by."""
        return float(self.infer(name, np.ones((1, 4), np.float32))[0, 0])

    @property
    def condition(self) -> str:
        return condition(self.driver.state)

    def model(self, version: str = "1", name: str = "digits") -> ModelReport:
        found = [m for m in self.driver.models() if (m.name, m.version) == (name, version)]
        assert len(found) == 1, self.driver.models()
        return found[0]

    def restarted(self, **options: Any) -> Rig:
        """The next process on the same disk, after this one died."""
        options = {"channel": self.channel, "repository": self.repository, **options}
        return Rig(self.root.parent, **options)


def serving(rig: Rig, factor: float = 2.0) -> str:
    """Deploy a release that works; returns its digest."""
    release = rig.repository.release({"digits": rig.repository.fake(factor)})
    rig.deploy(release)
    assert rig.factor() == factor
    return release
