"""The models that the serving benchmarks run, and requests for them."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgefleet.protocol.inference import encode_request

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYERS = (64, 64, 32, 1)


class Subject(NamedTuple):
    """A model file, one input for it, and the request that sends it."""

    name: str
    path: Path
    inputs: dict[str, NDArray[Any]]
    body: bytes
    headers: dict[str, str]

    @property
    def target(self) -> str:
        """The path that requests go to."""
        return f"/v2/models/{self.name}/infer"


def mlp(folder: Path) -> Subject:
    """A 64-64-32-1 perceptron, ``x`` FP32[batch, 64]."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    pairs = list(itertools.pairwise(_LAYERS))
    for index, (wide, out) in enumerate(pairs):
        weight = random.standard_normal((wide, out)).astype(np.float32) / 8
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        weights.append(numpy_helper.from_array(np.zeros(out, np.float32), f"b{index}"))
        ended = index == len(pairs) - 1
        name = "y" if ended else f"h{index}"
        nodes.append(helper.make_node("Gemm", [last, f"w{index}", f"b{index}"], [name]))
        if not ended:
            nodes.append(helper.make_node("Relu", [name], [f"r{index}"]))
            last = f"r{index}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", _LAYERS[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", _LAYERS[-1]])],
        weights,
    )
    path = folder / "mlp.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return _subject("mlp", path, {"x": random.standard_normal((1, 64)).astype(np.float32)})


def from_onnx_package(name: str) -> Subject:
    """One of the onnx package's own test models, such as ``squeezenet`` (weights are constants)."""
    spec = importlib.util.find_spec("onnx")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / f"backend/test/data/light/light_{name}.onnx"
    model = onnx.load(path)
    made = {tensor.name for tensor in model.graph.initializer}
    (given,) = (value for value in model.graph.input if value.name not in made)
    shape = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return _subject(name, path, {given.name: array})


def _subject(name: str, path: Path, inputs: dict[str, NDArray[Any]]) -> Subject:
    body, headers = encode_request(inputs)
    return Subject(name, path, inputs, body, headers)
