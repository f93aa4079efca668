"""Running a model here: what every engine's session has, and the one of ONNX Runtime."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError, InvalidModelError
from edgefleet.optimization.samples import arrange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.optimization.samples import Feed, Samples
    from edgefleet.protocol.bundle import Interface

_FATAL_ONLY = 4  # what goes wrong is raised; onnxruntime need not print it too
BLOCKS = 5  # turns that each session gets while latencies are compared


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that one call took on this machine's CPU."""

    p50_s: float
    p99_s: float
    calls: int


class Session(ABC):
    """A model ready to run on this machine's CPU.

    Args:
        interface: inputs and outputs as callers see them.
    """

    def __init__(self, interface: Interface) -> None:
        self.interface = interface
        self.outputs = [spec.name for spec in interface.outputs]

    @abstractmethod
    def _run(self, feed: Feed) -> Sequence[NDArray[Any]]:
        """The outputs of one call, in the interface's order; any exception is the input's fault."""

    def run(self, feed: Feed) -> Feed:
        """The outputs of one call, by name.

        Raises:
            InvalidInputError: the engine refuses the input, or fails on it.
        """
        try:
            outputs = self._run(feed)
        except Exception as error:  # engines' errors share no base class but Exception
            raise InvalidInputError(
                f"the model fails on this input: {_first_line(error)}",
                cure="check values and shapes against what the model was trained on",
            ) from error
        return dict(zip(self.outputs, outputs, strict=True))

    def predict(self, values: object) -> Any:  # noqa: ANN401 - an array or a mapping, by the model
        """The outputs for any number of samples; what `optimize` hands to ``evaluate``.

        Args:
            values: an array where the model has one input, else a mapping of input name to array;
                the first axis counts samples. Converted to the model's dtypes where no value is
                lost.

        Returns:
            An array where the model has one output, else a mapping of output name to array; the
            first axis counts samples. A model of a fixed batch is called as often as it takes.

        Raises:
            InvalidInputError: the values don't suit the model.
        """
        outputs = self._all(arrange(values, self.interface, what="predict"))
        return outputs[self.outputs[0]] if len(self.outputs) == 1 else outputs

    def _all(self, samples: Samples) -> Feed:
        import numpy as np

        if samples.step is None:
            return self.run(samples.feed(0, samples.count))
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in self.outputs}
        for start in range(0, samples.count, samples.step):
            due = min(samples.step, samples.count - start)
            feed = samples.feed(start, start + samples.step)
            if due < samples.step:  # fill the last call up with copies of its last sample
                feed = {name: _filled(array, samples.step) for name, array in feed.items()}
            for name, output in self.run(feed).items():
                batched = not samples.bare and output.ndim and len(output) == samples.step
                parts[name].append(output[:due] if batched else output[np.newaxis])
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def seconds(self, feed: Feed) -> float:
        """How long one call takes."""
        start = time.perf_counter()
        self.run(feed)
        return time.perf_counter() - start


class OnnxSession(Session):
    """An ONNX model in ONNX Runtime.

    Args:
        path: an ONNX file that `onnx_file.inspect` accepts.
        interface: what `inspect` said.
        literal: run the graph node by node as it is written, without the fusions that replace
            quantize/dequantize pairs by integer kernels: another legitimate way to compute it.

    Raises:
        InvalidModelError: onnxruntime can't load it.
    """

    def __init__(self, path: Path, interface: Interface, *, literal: bool = False) -> None:
        import onnxruntime

        super().__init__(interface)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        if literal:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base class but Exception
            raise InvalidModelError(
                f"onnxruntime {onnxruntime.__version__} cannot load {path}: {_first_line(error)}",
                cure="export it again with operators and an opset that onnxruntime knows",
            ) from error

    def _run(self, feed: Feed) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = self._session.run(self.outputs, feed)
        return outputs


def compare_latency(
    sessions: Mapping[str, Session], feed: Feed, *, budget_s: float = 1.0
) -> dict[str, Latency]:
    """Latency of each session on the same input, measured in turns so that noise hits all alike.

    Args:
        sessions: by name.
        feed: one call's input.
        budget_s: about how many seconds each session may take; at least 5 calls are made all the
            same.
    """
    import numpy as np

    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(BLOCKS):
        for name, session in sessions.items():
            session.seconds(feed)  # what the other's turn pushed out of the caches doesn't count
            end = time.perf_counter() + budget_s / BLOCKS
            while True:
                taken[name].append(session.seconds(feed))
                if time.perf_counter() > end or len(taken[name]) % 200 == 0:
                    break
    return {
        name: Latency(
            p50_s=float(np.percentile(times, 50)),
            p99_s=float(np.percentile(times, 99)),
            calls=len(times),
        )
        for name, times in taken.items()
    }


def _filled(array: NDArray[Any], length: int) -> NDArray[Any]:
    import numpy as np

    return np.concatenate([array, np.repeat(array[-1:], length - len(array), axis=0)])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
