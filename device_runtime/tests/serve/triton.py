"""What the tests with Triton's own clients share: models, a model control, shared memory."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from device_runtime.tests import onnx_models
from device_runtime.tests.serving import FakeModel, served, table_of
from edgefleet.errors import NotFoundError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.extensions.repository import LoadRequest, ModelState
from edgefleet_runtime.serve.table import ModelTable

X = np.array([[0, 0, 0, 1], [1, 0, 0, 0]], np.float32)
Y = np.maximum(X @ (np.arange(8, dtype=np.float32).reshape(4, 2) - 3), 0)
WORDS = np.array([b"caf\xc3\xa9", b"", b"x" * 3000], object)


def vector(*elements: float) -> NDArray[np.float32]:
    return np.array(elements, np.float32)


def table(folder: Path) -> ModelTable:
    """An MLP, a model of two outputs, one of text and one that is fake."""
    engine, options = OnnxRuntimeEngine(), EngineOptions(threads=1)
    return table_of(
        served(engine.load(onnx_models.mlp(folder / "mlp.onnx"), options), "mlp", "3"),
        served(engine.load(onnx_models.scalar_and_two_outputs(folder / "2.onnx"), options), "two"),
        served(
            engine.load(onnx_models.identity(folder / "t.onnx", TensorProto.STRING), options),
            "text",
        ),
        served(FakeModel(1), "plus"),
    )


class Control:
    """A model control over fake models."""

    def __init__(self, models: ModelTable) -> None:
        self._table = models
        self.seen: list[LoadRequest] = []

    def index(self) -> Sequence[ModelState]:
        ready = [ModelState(name=m.name, version=m.version, state="READY") for m in self._table]
        return (*ready, ModelState(name="spare", state="UNAVAILABLE", reason="unloaded"))

    def load(self, request: LoadRequest) -> None:
        self.seen.append(request)
        if request.name != "spare":
            raise NotFoundError(f"no model {request.name!r} in the repository")
        models = {model.name: model for model in self._table}
        self._table.swap({**models, "spare": served(FakeModel(7), "spare")})

    def unload(self, name: str, *, dependents: bool) -> None:
        kept = {model.name: model for model in self._table if model.name != name}
        for gone in self._table.swap(kept):
            gone.retire()


@contextmanager
def shared_object(size: int, *, folder: Path = Path("/dev/shm")) -> Iterator[Path]:
    """An object of POSIX shared memory, with zeros in it."""
    path = folder / f"edgefleet-test-{os.getpid()}-{uuid.uuid4().hex}"
    path.write_bytes(bytes(size))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
