"""Small models in plain numpy for tests of graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet_runtime.engines.base import LoadedModel
from edgefleet_runtime.engines.feed import FeedCheck
from edgefleet_runtime.serve.table import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

X = np.array([1, 2, 3], np.float32)


def spec(name: str, datatype: Any = "FP32", shape: tuple[int, ...] = (-1,)) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


class NumpyModel(LoadedModel):
    """Gives what a function makes of its inputs, whose parameters are the inputs' names."""

    engine = "numpy"
    providers = ("NumpyProvider",)
    platform = "numpy_function"

    def __init__(
        self,
        compute: Callable[..., dict[str, NDArray[Any]]],
        inputs: Sequence[TensorSpec] = (spec("x"),),
        outputs: Sequence[TensorSpec] = (spec("y"),),
    ) -> None:
        self.interface = Interface(inputs=tuple(inputs), outputs=tuple(outputs))
        self.closed = False
        self.runs = 0
        self._check = FeedCheck(self.interface, text=False)
        self._compute = compute

    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        assert not self.closed, "used after close"
        feed = self._check.feed(inputs)
        self.runs += 1
        made = self._compute(**feed)
        names = self._check.wanted(outputs) if outputs else list(made)
        return {name: made[name] for name in names}

    def close(self) -> None:
        self.closed = True


def plus(addend: float) -> NumpyModel:
    """``x`` to ``y`` = x + addend."""
    return NumpyModel(lambda x: {"y": x + np.float32(addend)})


def add() -> NumpyModel:
    """``a`` and ``b`` to ``sum``."""
    return NumpyModel(lambda a, b: {"sum": a + b}, [spec("a"), spec("b")], [spec("sum")])


def served(model: LoadedModel, name: str, version: str = "1") -> ServedModel:
    return ServedModel(model, name=name, version=version, bundle="", variant="")


def models(**named: LoadedModel) -> dict[str, ServedModel]:
    return {name: served(model, name) for name, model in named.items()}
