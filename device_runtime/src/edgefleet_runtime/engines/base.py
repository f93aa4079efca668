"""What an engine is: it opens a variant's files and runs them, and says truthfully on what.

Rules: a loaded model reads its providers back from the session, never from what was asked for; it
may be called from several threads at once; `close` frees its memory and may be called twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from edgefleet.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface


Throughput = Literal["measured", "always", "never"]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to open a model.

    Attributes:
        providers: execution providers wanted, the best first; empty means the engine's own choice.
        strict: refuse when the first provider wanted is not the one in use.
        threads: threads for one run; 0 leaves it to the engine.
        throughput: whether runs that go on at the same time get one thread each, through a second
            session, which takes the model's memory again; a run alone still gets its `threads`.
            ``measured``: where this machine has the room and their own traffic shows a gain.
        engine_cache: folder for what an engine builds from a model, to be found at the next start;
            None to build anew.
        provider_options: further options of the first provider wanted, by the names that its
            vendor gives them; they go before our own.
        memory_max_bytes: of a GPU that one model may take for its weights and its runs; 0 for all.
        shrink_above_bytes: a run whose inputs are larger gives the memory that it made the engine
            take back; 0 to keep it for the next one.
        custom_ops: digests (``sha256:…``) of the libraries of custom operators that may be loaded
            from a model's own folder.
    """

    providers: tuple[str, ...] = ()
    strict: bool = False
    threads: int = 0
    throughput: Throughput = "measured"
    engine_cache: Path | None = None
    provider_options: tuple[tuple[str, str], ...] = ()
    memory_max_bytes: int = 0
    shrink_above_bytes: int = 8 << 20
    custom_ops: tuple[str, ...] = ()


class Bound(ABC):
    """A model with its inputs and outputs in places of the caller's, to be run again and again.

    A run allocates nothing and copies nothing on the device that the model runs on. Runs of one
    `Bound` take turns; for runs at the same time bind once a thread.

    Attributes:
        inputs: the tensors that each run reads, by name; change their content between runs.
        outputs: the tensors that each run overwrites, by name.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]

    @abstractmethod
    def run(self) -> Mapping[str, Any]:
        """Run the model on what `inputs` hold now; returns `outputs`, the same tensors each time.

        What lies on a GPU must have been written before the call, and is there when it returns.

        Raises:
            InferenceError: the model failed, is closed, or an output has another shape this time.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the tensors; may be called twice."""


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
    device: int | None = None
    """Number of the GPU whose memory `bind` and `infer_on_device` take; None for the host alone."""
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
            InvalidInputError: unknown, missing or misshapen inputs, unknown outputs, or one text
                for a list of them.
            InferenceError: the engine failed.
        """

    def bind(
        self,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any] | Sequence[str] | None = None,
    ) -> Bound:
        """Fix where inputs and outputs lie.

        Args:
            inputs: one tensor an input, C-contiguous, of the input's dtype and shape, as
                `edgefleet_runtime.engines.device_memory.tensor_of` takes them.
            outputs: tensors to write, likewise and writable; or names wanted (None for all), for
                which arrays of the shapes that one run gives are made here.

        Raises:
            InvalidInputError: a tensor doesn't fit, or lies on a device that the model isn't on.
            UnsupportedError: this engine can't.
        """
        raise UnsupportedError(f"{self.engine} can't bind tensors", cure="call infer() instead")

    def infer_on_device(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None,
        stay: Collection[str],
    ) -> dict[str, Any]:
        """As `infer`, with inputs in the memory of `device`, and outputs that stay there.

        Args:
            inputs: as of `infer`, or tensors on `device`.
            outputs: as of `infer`.
            stay: names of outputs to leave on `device`.
        """
        raise UnsupportedError(f"{self.engine} takes no tensors on a GPU", cure="send plain ones")

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
