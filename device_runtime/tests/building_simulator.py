"""An engine that builds, as a third party's package brings it: real models, and a build that waits.

`install` makes a folder for ``PYTHONPATH`` by which every process finds the engine. A build says
that it is half done, waits until the file of the environment's ``SIMULATOR_GO`` is there, and fails
when that file says so.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.structs import replace
from numpy.typing import NDArray

from edgefleet.errors import InvalidModelError
from edgefleet_runtime.engines.base import Engine, EngineOptions, LoadedModel
from edgefleet_runtime.engines.building import CanBuild
from edgefleet_runtime.engines.discovery import GROUP
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.engines.parts import Parts

if TYPE_CHECKING:
    from edgefleet_runtime.engines.building import Tell

GO, DRIVER = "SIMULATOR_GO", "SIMULATOR_DRIVER"
BUILT, INTERIM = "BuiltExecutionProvider", "InterimExecutionProvider"
NAME = "a-builder"  # before onnxruntime, so that it is asked first


class SimulatedModel(LoadedModel):
    def __init__(self, real: LoadedModel, provider: str) -> None:
        self._real = real
        self.interface = real.interface
        self.engine = real.engine
        self.providers = (provider,)

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        return self._real.infer(inputs, outputs)

    def close(self) -> None:
        self._real.close()


class BuildingEngine(Engine, CanBuild):
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})

    @classmethod
    def available(cls) -> tuple[str, ...]:
        return (BUILT, INTERIM)

    @classmethod
    def machine(cls) -> Mapping[str, str] | None:
        return {"driver": os.environ.get(DRIVER, "1"), "gpus": "simulated"}

    def parts(self, entry: Path, options: EngineOptions) -> Parts | None:
        if options.engine_cache is None or options.providers == (INTERIM,):
            return None
        return Parts(
            builder=NAME,
            provider=BUILT,
            model=hashlib.sha256(entry.read_bytes()).hexdigest(),
            options={},
            machine=dict(self.machine() or {}),
        )

    def interim(self, options: EngineOptions) -> EngineOptions:
        return replace(options, providers=(INTERIM,))

    def build_into(self, folder: Path, entry: Path, options: EngineOptions, tell: Tell) -> None:
        (folder / "half.bin").write_bytes(b"half")
        tell(0.5)
        go, tick = Path(os.environ[GO]), threading.Event()
        while not go.exists():
            tick.wait(0.01)
        if go.read_text() == "fail":
            raise InvalidModelError("no kernel fits")
        (folder / "half.bin").unlink()
        (folder / "engine.bin").write_bytes(entry.read_bytes())

    def load(self, entry: Path, options: EngineOptions) -> LoadedModel:
        folder = self.build(entry, options)
        plain = EngineOptions(providers=("CPUExecutionProvider",))
        if folder is None:
            return SimulatedModel(OnnxRuntimeEngine().load(entry, plain), INTERIM)
        return SimulatedModel(OnnxRuntimeEngine().load(folder / "engine.bin", plain), BUILT)


def install(folder: Path, *, go: Path) -> dict[str, str]:
    """Make the package; returns the environment in which it is installed."""
    metadata = folder / "a_builder-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: a-builder\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{NAME} = {__name__}:BuildingEngine\n")
    root = Path(__file__).parents[2]
    return {"PYTHONPATH": f"{folder}{os.pathsep}{root}", GO: str(go)}
