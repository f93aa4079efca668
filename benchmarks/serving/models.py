"""The models that the serving benchmarks run, and requests for them.

All are made here or come with the onnx package, from fixed seeds: nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.serving.raw import session_of
from edgefleet.protocol.inference import encode_request
from edgefleet_runtime.serve.grpc import inference_pb2 as pb

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYERS = (64, 64, 32, 1)
OPSET = 17
IR_VERSION = 9
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Request(NamedTuple):
    """A POST; ``answers_elsewhere`` when outputs don't come back in the body."""

    path: str
    body: bytes
    headers: dict[str, str]
    answers_elsewhere: bool = False


class Subject:
    """A model file with one input, and what it answers to one value of it.

    Attributes:
        inputs: the value, by the input's name.
        output: the output's name.
        due: what `session.run` makes of it.
    """

    def __init__(self, name: str, path: Path, inputs: dict[str, NDArray[Any]]) -> None:
        self.name = name
        self.path = path
        self.inputs = inputs
        session = session_of(path)
        self.output: str = session.get_outputs()[0].name
        self.due: NDArray[Any] = session.run(None, inputs)[0]

    def check(self, seen: NDArray[Any]) -> None:
        """Hold an answer against what is due.

        Raises:
            RuntimeError: it is another.
        """
        shape = self.due.shape
        near = seen.size == self.due.size
        near = near and np.allclose(seen.reshape(shape), self.due, rtol=1e-3, atol=1e-4)
        if not near:
            raise RuntimeError(f"{self.name} answered with other values")

    @property
    def path_of_infer(self) -> str:
        """Where REST requests go."""
        return f"/v2/models/{self.name}/infer"

    @property
    def binary(self) -> Request:
        """Tensors as raw bytes, both ways."""
        return Request(self.path_of_infer, *encode_request(self.inputs))

    @property
    def json(self) -> Request:
        """Everything in JSON, for servers that know nothing else."""
        body, headers = encode_request(self.inputs, binary=False)
        return Request(self.path_of_infer, body, headers)

    @property
    def message(self) -> bytes:
        """A ModelInferRequest with raw contents."""
        request = pb.ModelInferRequest(model_name=self.name)
        for name, array in self.inputs.items():
            request.inputs.add(name=name, datatype="FP32", shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        data: bytes = request.SerializeToString()
        return data

    @property
    def call(self) -> Request:
        """The same as an HTTP/2 request."""
        body = b"\0" + len(self.message).to_bytes(4) + self.message
        return Request(INFER, body, {"content-type": "application/grpc", "te": "trailers"})


def mlp(folder: Path, *, seed: int = 0) -> Subject:
    """A 64-64-32-1 perceptron, ``x`` FP32[batch, 64]; another seed gives other weights."""
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    pairs = list(itertools.pairwise(LAYERS))
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
    path = folder / f"mlp-{seed}.onnx"
    save(path, nodes, ("x", ["batch", LAYERS[0]]), ("y", ["batch", LAYERS[-1]]), weights)
    x = np.random.default_rng(0).standard_normal((1, LAYERS[0])).astype(np.float32)
    return Subject("mlp", path, {"x": x})


def squeezenet() -> Subject:
    """SqueezeNet 1.0 as the onnx package ships it for its tests: its weights are constants."""
    spec = importlib.util.find_spec("onnx")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "backend/test/data/light/light_squeezenet.onnx"
    model = onnx.load(path)
    made = {tensor.name for tensor in model.graph.initializer}
    (given,) = (value for value in model.graph.input if value.name not in made)
    shape = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return Subject("squeezenet", path, {given.name: array})


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    given: tuple[str, list[str | int | None]],
    gives: tuple[str, list[str | int | None]],
    weights: list[TensorProto],
) -> None:
    """Write a model of one FP32 input and one FP32 output."""
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
        [helper.make_tensor_value_info(gives[0], TensorProto.FLOAT, gives[1])],
        weights,
    )
    opset = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION), path)
