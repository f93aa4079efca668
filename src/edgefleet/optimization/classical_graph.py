"""What is put right in a converted model's graph, and what a graph is told by to be classical."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.optimization.classical_mending import ML_DOMAIN
from edgefleet.optimization.external_data import nodes_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

_WEIGHED = frozenset(
    {"Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"}
)
"""Operators whose weights quantization narrows."""


def is_classical(path: Path) -> bool:
    """Whether a model decides in operators of ``ai.onnx.ml`` and has nothing to quantize.

    Trees, support vectors and linear models keep their numbers in attributes, which no quantizer
    narrows: int8 and fp16 candidates of such a model would be the model again. A network that
    scikit-learn trained multiplies matrices, and is none of these.

    Args:
        path: an ONNX file that `onnx_file.inspect` accepts.
    """
    import onnx

    nodes = list(nodes_of(onnx.load(path, load_external_data=False)))
    return any(node.domain == ML_DOMAIN for node in nodes) and not any(
        node.op_type in _WEIGHED for node in nodes
    )


def name_outputs(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give outputs other names, wherever they are spoken of."""
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in model.graph.output:
        value.name = names.get(value.name, value.name)


def declare_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Declare outputs as a run gave them: any number of rows, and the lengths behind."""
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        del dims[:]
        for axis, length in enumerate(shapes[value.name]):
            dim = dims.add()
            if axis:
                dim.dim_value = length


def mirror(model: onnx.ModelProto, output: str) -> None:
    """Turn the sign of an output: scores of two classes that stood in each other's column."""
    import onnx

    inner = f"{output}_mirrored"
    for node in model.graph.node:
        node.output[:] = [inner if name == output else name for name in node.output]
        node.input[:] = [inner if name == output else name for name in node.input]
    model.graph.node.append(onnx.helper.make_node("Neg", [inner], [output], name=inner))
