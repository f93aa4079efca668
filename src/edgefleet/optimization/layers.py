"""What 8 bits leave of each layer: every tensor of an int8 model held against itself in floats.

The measure is the median relative error of an element when its tensor alone is quantized,
activations as they are in the model as given on calibration samples (onnxruntime's
``qdq_loss_debug`` pairs weights and collects activations). A mean or a signal-to-noise ratio would
not show the common culprit, one channel that is so much larger than its neighbours that nothing is
left of them: the large one dominates both.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgefleet.optimization.makers import NotMade, told
from edgefleet.optimization.quantize import prepared_beside, quiet
from edgefleet.optimization.ranges import activations, some_feeds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.onnx_file import OnnxFile
    from edgefleet.optimization.samples import Samples

log = logging.getLogger(__name__)

WORST = 3  # layers that a report names


@dataclass(frozen=True, slots=True)
class Loss:
    """What quantizing one tensor costs.

    Attributes:
        layer: the node with weights that the tensor belongs to, or that reads it.
        tensor: its name.
        error: median relative error of its elements: 0.01 is one percent, 1.0 means that nothing is
            left of an ordinary value.
        nodes: what must stay in floats for the tensor to.
    """

    layer: str
    tensor: str
    error: float
    nodes: tuple[str, ...]


def worst_layers(artifact: Artifact, file: OnnxFile, samples: Samples) -> tuple[Loss, ...]:
    """The layers of an int8 candidate that lose most, each by its worst tensor.

    Args:
        artifact: as `quantize.make_static` left it; where the prepared model lies no more beside
            it, that is made anew.
        file: the model as given.
        samples: calibration data.
    """
    try:
        found = losses(artifact, prepared_beside(artifact, file), samples)
    except NotMade:
        return ()
    by_layer: dict[str, Loss] = {}
    for loss in found:
        if loss.error > 0:
            by_layer.setdefault(loss.layer, loss)
    return tuple(by_layer.values())[:WORST]


def losses(quantized: Artifact, prepared: Path, samples: Samples) -> list[Loss]:
    """What every quantized tensor loses, the worst first.

    Args:
        quantized: a static int8 model.
        prepared: the model that it was made of, in floats.
        samples: calibration data.

    Raises:
        NotMade: onnxruntime can't run the model with all its tensors as outputs.
    """
    import onnx

    errors = _errors(quantized, prepared, samples)
    graph = onnx.load(prepared, load_external_data=False).graph
    found: list[Loss] = []
    for tensor in sorted(errors, key=lambda name: (-errors[name], name)):
        nodes = tuple(dict.fromkeys(_touching(tensor, graph)))
        if nodes:
            found.append(Loss(_layer(nodes, graph), tensor, errors[tensor], nodes))
    return found


def _layer(nodes: tuple[str, ...], graph: onnx.GraphProto) -> str:
    """The last of the nodes that has weights: the one that writes a tensor, else one that reads."""
    weights = _weights(graph)
    with_weights = [n.name for n in graph.node if n.name in nodes and weights & {*n.input}]
    return next((name for name in reversed(nodes) if name in with_weights), nodes[0])


def _weights(graph: onnx.GraphProto) -> set[str]:
    return {constant.name for constant in graph.initializer if len(constant.dims) > 1}


def _touching(tensor: str, graph: onnx.GraphProto) -> Iterator[str]:
    """The nodes that read a tensor, and those that write it, up to the one with weights.

    A ReLU between is merged into the node before it: left out alone, that node's output would be
    quantized in its place.
    """
    yield from (node.name for node in graph.node if tensor in node.input)
    weights = _weights(graph)
    writers = {name: node for node in graph.node for name in node.output}
    above = [tensor]
    while above:
        node = writers.get(above.pop())
        if node is not None:
            yield node.name
            above += () if weights & {*node.input} else node.input[:1]


def _errors(quantized: Artifact, prepared: Path, samples: Samples) -> dict[str, float]:
    """Median relative error of an element by tensor; the larger, the less 8 bits leave of it."""
    from onnxruntime.quantization import qdq_loss_debug

    try:
        with quiet():
            weights = qdq_loss_debug.create_weight_matching(str(prepared), str(quantized.path))
            seen = activations(prepared, some_feeds(samples))
    except Exception as error:  # the tool raises anything
        log.info("nothing found of %s", quantized.path, exc_info=True)
        raise NotMade(told("onnxruntime's search", error)) from error
    found = {
        name: _relative([pair["float"]], [pair["dequantized"]]) for name, pair in weights.items()
    }
    for name, (scale, zero, lowest, highest) in _grids(quantized).items():
        values = seen.get(name, [])
        kept = [((v / scale + zero).round().clip(lowest, highest) - zero) * scale for v in values]
        if kept:
            found[name] = _relative(values, kept)
    return found


def _grids(quantized: Artifact) -> dict[str, tuple[float, float, float, float]]:
    """Scale, zero point, lowest and highest step of every activation that is quantized."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(quantized.path).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or not {*node.input[1:]} <= constants.keys():
            continue
        scale, zero = (constants[name] for name in node.input[1:3])
        steps = np.iinfo(zero.dtype)
        name = node.input[0].removesuffix("_QuantizeLinear_Input")
        found[name] = (float(scale), float(zero), float(steps.min), float(steps.max))
    return found


def _relative(before: Any, after: Any) -> float:  # noqa: ANN401 - lists of arrays
    import numpy as np

    due = np.concatenate([np.ravel(array) for array in before]).astype(np.float64)
    seen = np.concatenate([np.ravel(array) for array in after]).astype(np.float64)
    there = np.abs(due) > 0
    if not there.any():
        return 0.0
    error = float(np.median(np.abs(due[there] - seen[there]) / np.abs(due[there])))
    return error if math.isfinite(error) else math.inf
