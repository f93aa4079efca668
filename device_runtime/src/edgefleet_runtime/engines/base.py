"""What an engine is: it opens a variant's files and runs them, and says truthfully on what.

Rules: a loaded model reads its providers back from the session, never from what was asked for; it
may be called from several threads at once; `close` frees its memory and may be called twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to open a model.

    Attributes:
        providers: execution providers wanted, the best first; empty means the engine's own choice.
        strict: refuse when the first provider wanted is not the one in use.
        threads: threads for one run; 0 leaves it to the engine.
        engine_cache: folder for what an engine builds from a model, to be found at the next start;
            None to build anew.
    """

    providers: tuple[str, ...] = ()
    strict: bool = False
    threads: int = 0
    engine_cache: Path | None = None


class LoadedModel(ABC):
    """A model in memory."""

    interface: Interface
    """Inputs and outputs as the session has them."""
    engine: str
    """Name and version, such as ``onnxruntime 1.31.1``."""
    providers: tuple[str, ...]
    """Execution providers read back from the session, the one in use first."""
    platform: str = ""
    """Open Inference Protocol v2's name of framework and format, such as ``onnxruntime_onnx``."""
    nodes: Mapping[str, int] = MappingProxyType({})
    """How many nodes of the graph each provider runs; empty where the engine doesn't tell."""
    configuration: Mapping[str, Any] = MappingProxyType({})
    """What its configuration says beyond all others', as ``inference.ModelConfig`` names fields."""

    @abstractmethod
    def infer(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run the model once.

        Args:
            inputs: one array an input, dtypes and shapes as `interface` says (-1 fits any length).
                BYTES tensors are object arrays of ``bytes`` or ``str``.
            outputs: names wanted, in this order; None for all in the model's order.

        Raises:
            InvalidInputError: unknown, missing or misshapen inputs, unknown outputs.
            InferenceError: the engine failed.
        """

    def probe(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Run the model as `infer` does, for a measurement and for nobody: nothing counts it."""
        return self.infer(inputs, outputs)

    @abstractmethod
    def close(self) -> None:
        """Free the model's memory."""


class Engine(ABC):
    """Opens models of some formats."""

    formats: ClassVar[frozenset[str]]
    """Formats of `edgefleet.protocol.bundle.Variant.format` that it opens."""

    @classmethod
    @abstractmethod
    def available(cls) -> tuple[str, ...]:
        """Execution providers that this installation lists; empty when the engine can't be used."""

    @abstractmethod
    def load(self, entry: Path, options: EngineOptions) -> LoadedModel:
        """Open a model file.

        Raises:
            InvalidModelError: the file is broken, or its opset or operators are too new.
            UnsupportedError: ``strict`` and the wanted provider is not in use.
            MissingExtraError: the engine's library is not installed.
        """
