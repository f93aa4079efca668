"""Pruning: what counts least is taken out, by its size; what that costs, the gate tells.

Whole channels (`make_channels`) make a smaller and faster model on every engine. Single weights
(`make_weights`) become zeros, which take as many bytes and as much time as any other number on the
engines that devices run; they only travel better when compressed, and the report says how much.
Neither is trained again here: where accuracy suffers, prune while training, and give the result.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgefleet.optimization.artifact import made_onnx
from edgefleet.optimization.external_data import nodes_of, tensors_of
from edgefleet.optimization.makers import REMARK, NotMade, check, listed
from edgefleet.optimization.quantize import prepare

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.channels import Graph, Layer
    from edgefleet.optimization.makers import Say, Source
    from edgefleet.optimization.recipes import Recipe

WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (0, 1)}
WEIGHTS |= dict.fromkeys(("GRU", "LSTM", "RNN"), (1, 2))
"""Inputs that are weights where they are constants, by operator."""


def make_weights(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """The model with the smallest share of each weight tensor set to zero.

    Raises:
        NotMade: it has no weights, or is no model to start from.
    """
    import onnx
    from onnx import numpy_helper

    check(source.file)
    say("setting weights to zero")
    model = onnx.load(source.file.path)
    names = {
        node.input[place]
        for node in nodes_of(model)
        for place in WEIGHTS.get(node.op_type, ())
        if place < len(node.input)
    }
    share = _share(recipe)
    before = len(zstd.compress(model.SerializeToString(deterministic=True)))
    zeros = total = 0
    for tensor in tensors_of(model):
        if tensor.name in names and tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).copy()
            values.ravel()[_smallest(abs(values.ravel()), share)] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            zeros, total = zeros + values.size - int((values != 0).sum()), total + values.size
    if not zeros:
        msg = "it has no weights to set to zero"
        raise NotMade(msg)
    data = model.SerializeToString(deterministic=True)
    after = len(zstd.compress(data))
    remark = (
        f"{zeros} of {total} weights are zero: as many bytes on the device, "
        f"{after / before:.0%} of them when compressed, and no faster on a dense engine"
    )
    return _written(data, recipe, source, to, remark)


def make_channels(recipe: Recipe, source: Source, to: Path, say: Say) -> Artifact:
    """The model without the share of each layer's output channels that has the smallest norm.

    Raises:
        NotMade: it has no layer whose channels can be followed, or is no model to start from.
    """
    import onnx

    from edgefleet.optimization.channels import Graph, Layer

    check(source.file)
    say("following channels")
    model = onnx.load(prepare(source.file, to))
    _unshare(model)
    graph = Graph(model)
    found = list(graph.layers())
    chosen = {
        layer: channels
        for layer in found
        if isinstance(layer, Layer)
        for channels in [_least(graph, layer, _share(recipe))]
        if channels.size
    }
    whole = [f"{name} ({reason})" for name, reason in (f for f in found if isinstance(f, tuple))]
    if not chosen:
        reasons = f": {listed(whole)}" if whole else ""
        msg = f"it has no layer whose channels can be removed{reasons}"
        raise NotMade(msg)
    say(f"removing channels of {len(chosen)} layers")
    _remove(graph, chosen)
    removed = sum(channels.size for channels in chosen.values())
    count = sum(layer.channels for layer in chosen)
    names = listed([layer.node for layer in chosen])
    remark = f"{removed} of {count} channels of {names} removed"
    remark += f"; left whole: {listed(whole)}" if whole else ""
    return _written(model.SerializeToString(deterministic=True), recipe, source, to, remark)


def _share(recipe: Recipe) -> float:
    return float(recipe.option("share", 0.25))


def _written(data: bytes, recipe: Recipe, source: Source, to: Path, remark: str) -> Artifact:
    made = to / "pruned.onnx"
    made.write_bytes(data)
    notes = {"pruning": recipe.about, REMARK: remark}
    return made_onnx(made, source.file.interface, precision=recipe.precision, notes=notes)


def _unshare(model: onnx.ModelProto) -> None:
    """Give each reader of a vector its own: equal ones, such as biases of zeros, were made one."""
    vectors = {t.name: t for t in model.graph.initializer if len(t.dims) == 1}
    taken: set[str] = set()
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in taken:
                own = model.graph.initializer.add()
                own.CopyFrom(vectors[name])
                own.name = node.input[place] = f"{name}/{node.name}/{place}"
            elif name in vectors:
                taken.add(name)


def _smallest(sizes: NDArray[np.float32], share: float) -> NDArray[np.intp]:
    """Indices of the smallest share, in order; of equal ones the first."""
    import numpy as np

    return np.sort(np.argsort(sizes, kind="stable")[: int(sizes.size * share)])


def _least(graph: Graph, layer: Layer, share: float) -> NDArray[np.intp]:
    """The channels whose weights have the smallest norm; never all of them."""
    import numpy as np
    from onnx import numpy_helper

    weights = np.moveaxis(numpy_helper.to_array(graph.constants[layer.weights]), layer.axis, 0)
    norms = np.linalg.norm(weights.reshape(layer.channels, -1).astype(np.float64), axis=1)
    return _smallest(norms, share)[: layer.channels - 1]


def _remove(graph: Graph, chosen: dict[Layer, NDArray[np.intp]]) -> None:
    """Cut the constants, all by their indices as they were, and forget the shapes between."""
    import numpy as np
    from onnx import numpy_helper

    gone: dict[tuple[str, int], set[int]] = {}
    for layer, channels in chosen.items():
        for cut in layer.cuts:
            gone.setdefault((cut.constant, cut.axis), set()).update(cut.indices(channels).tolist())
    for (name, axis), indices in sorted(gone.items()):
        tensor = graph.constants[name]
        values = np.delete(numpy_helper.to_array(tensor), sorted(indices), axis)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
    for node in graph.model.graph.node:
        depthwise = node.op_type == "Conv" and (node.input[1], 0) in gone
        for attribute in node.attribute:
            if depthwise and attribute.name == "group" and attribute.i > 1:
                attribute.i = graph.constants[node.input[1]].dims[0]
    del graph.model.graph.value_info[:]
