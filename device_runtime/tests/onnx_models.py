"""Small ONNX models for tests, written with the reference library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OPSET = 17
IR_VERSION = 9  # read by every onnxruntime from 1.14 on


def tensor(name: str, kind: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, Any] | None = None,
    *,
    opset: int = OPSET,
    ir_version: int = IR_VERSION,
    external: bool = False,
) -> Path:
    """Write a model; with ``external`` its weights go to a file beside it."""
    constants = [numpy_helper.from_array(a, name) for name, a in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), constants)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(d, 1) for d in {n.domain for n in nodes} if d]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    onnx.save(
        model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0
    )
    return path


def mlp(path: Path, *, external: bool = False, opset: int = OPSET) -> Path:
    """``x`` FP32[n, 4] to ``y`` FP32[n, 2], a fixed matrix and a Relu."""
    weights = {"w": np.arange(8, dtype=np.float32).reshape(4, 2) - 3}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return save(
        path,
        nodes,
        [tensor("x", TensorProto.FLOAT, ["n", 4])],
        [tensor("y", TensorProto.FLOAT, ["n", 2])],
        weights,
        external=external,
        opset=opset,
    )


def plus(path: Path, addend: float, shape: Sequence[int | str] = ("n",)) -> Path:
    """``x`` FP32[n] to ``y`` = x + addend, so that its answers tell which model gave them."""
    return save(
        path,
        [helper.make_node("Add", ["x", "a"], ["y"])],
        [tensor("x", TensorProto.FLOAT, shape)],
        [tensor("y", TensorProto.FLOAT, shape)],
        {"a": np.array([addend], np.float32)},
    )


def identity(path: Path, kind: int, shape: Sequence[int | str] | None = ("n",)) -> Path:
    """``x`` of any ONNX element type to the same ``y``."""
    return save(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", kind, shape)],
        [tensor("y", kind, shape)],
    )


def expand(path: Path) -> Path:
    """``x`` FP32[1] and ``shape`` INT64[n]: an output as large as the caller says."""
    return save(
        path,
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        [tensor("x", TensorProto.FLOAT, [1]), tensor("shape", TensorProto.INT64, ["n"])],
        [tensor("y", TensorProto.FLOAT, None)],
    )


def scalar_and_two_outputs(path: Path) -> Path:
    """``x`` FP32 scalar to ``minus`` and ``plus``, in this order."""
    return save(
        path,
        [
            helper.make_node("Neg", ["x"], ["minus"]),
            helper.make_node("Abs", ["x"], ["plus"]),
        ],
        [tensor("x", TensorProto.FLOAT, [])],
        [tensor("minus", TensorProto.FLOAT, []), tensor("plus", TensorProto.FLOAT, [])],
    )


def custom_operator(path: Path) -> Path:
    """A model with an operator that no onnxruntime has built in."""
    return save(
        path,
        [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")],
        [tensor("x", TensorProto.FLOAT, [1])],
        [tensor("y", TensorProto.FLOAT, [1])],
    )
