"""Small ONNX models, made by hand so that each has just the trait that a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OPSET = 17
IR_VERSION = 10
FEATURES = 8


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    **more: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(constants))
    more.setdefault("opset_imports", [helper.make_opsetid("", OPSET)])
    more.setdefault("ir_version", IR_VERSION)
    return helper.make_model(graph, producer_name="tests", producer_version="1", **more)


def floats(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def weights(name: str, *shape: int, seed: int = 0, dtype: str = "float32") -> onnx.TensorProto:
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return numpy_helper.from_array(values, name)


def linear(**more: Any) -> onnx.ModelProto:
    """y = x @ w for float32[N, 8] -> float32[N, 8]."""
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [floats("x", "N", FEATURES)],
        [floats("y", "N", FEATURES)],
        [weights("w", FEATURES, FEATURES)],
        **more,
    )


def two_inputs(batch: int | str = "N") -> onnx.ModelProto:
    """total = a @ w + b, difference = a @ w - b."""
    return model_of(
        [
            helper.make_node("MatMul", ["a", "w"], ["h"]),
            helper.make_node("Add", ["h", "b"], ["total"]),
            helper.make_node("Sub", ["h", "b"], ["difference"]),
        ],
        [floats("a", batch, FEATURES), floats("b", batch, 4)],
        [floats("total", batch, 4), floats("difference", batch, 4)],
        [weights("w", FEATURES, 4)],
    )


def with_external(
    folder: Path, *, location: str = "weights.bin", change: dict[str, str] | None = None
) -> Path:
    """`linear` with its weights in a file beside it; ``change`` replaces external data entries."""
    model = linear()
    tensor = model.graph.initializer[0]
    data = bytes(tensor.raw_data)
    entries = {"location": location, "offset": "16", "length": str(len(data)), **(change or {})}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / location
    if file.resolve().is_relative_to(folder.resolve()):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(16) + data)
    return save(model, folder / "net.onnx")


def inputs_for(count: int = 32, *, seed: int = 1, width: int = FEATURES) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
