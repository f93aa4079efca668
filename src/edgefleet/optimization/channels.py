"""Which constants shrink with an output channel of a layer: channels followed through a graph.

A layer is a Conv of one group, a Gemm, or a MatMul with constant weights. Its output is followed
through operators that keep channels apart and a channel of zeros zero, up to the layers that read
it. So removing a channel is the same as making it zero, its biases included. What can't be
followed (a sum of two branches, a graph's output, an unknown shape, an operator not named here)
leaves the whole layer as it is, with the reason.

Nothing is changed here: cuts are collected, as indices of the constants as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx
    from numpy.typing import NDArray

ZERO_STAYS_ZERO = frozenset(
    {
        *("Abs", "Celu", "Dropout", "Elu", "Erf", "Gelu", "HardSwish", "Identity", "LeakyRelu"),
        *("Mish", "Neg", "Relu", "Selu", "Sign", "Softsign", "Sqrt", "Swish", "Tanh"),
        *("ThresholdedRelu",),
    }
)
"""Operators on single values whose value at 0 is 0."""

POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})


class Unfollowed(Exception):  # noqa: N818 - an outcome: the layer stays whole
    """Why a layer's channels can't be followed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer's channels lie in a tensor.

    Attributes:
        tensor: its name.
        axis: of the channels.
        start: index of the first.
        width: elements that each takes on that axis.
    """

    tensor: str
    axis: int
    start: int = 0
    width: int = 1


@dataclass(frozen=True, slots=True)
class Cut:
    """A constant of which elements go with each channel.

    Attributes:
        constant: its name.
        axis: along which.
        start: index of the first channel's first element.
        width: elements of each channel.
    """

    constant: str
    axis: int
    start: int = 0
    width: int = 1

    def indices(self, channels: NDArray[np.intp]) -> NDArray[np.intp]:
        """The elements of the channels given."""
        first = self.start + channels[:, np.newaxis] * self.width
        return (first + np.arange(self.width)).ravel()


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that can lose channels.

    Attributes:
        node: its name.
        weights: its constant.
        axis: of the output channels in the weights.
        channels: how many there are.
        cuts: of every constant that shrinks with a channel, the weights' own included.
    """

    node: str
    weights: str
    axis: int
    channels: int
    cuts: tuple[Cut, ...]


@dataclass(slots=True)
class Graph:
    """A model's graph, indexed.

    Args:
        model: with every shape inferred that can be, constants as initializers.
    """

    model: onnx.ModelProto
    constants: dict[str, onnx.TensorProto] = field(init=False)
    readers: dict[str, list[onnx.NodeProto]] = field(init=False)
    shapes: dict[str, tuple[int | None, ...]] = field(init=False)
    outside: set[str] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.readers = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        values = [*graph.value_info, *graph.input, *graph.output]
        self.shapes = {value.name: _shape(value) for value in values}
        self.outside = {value.name for value in graph.output} | {*_read_in_subgraphs(graph)}

    def layers(self) -> Iterator[Layer | tuple[str, str]]:
        """Every layer, or its name and the reason why it stays whole."""
        for node in self.model.graph.node:
            found = self._own(node)
            if found is None:
                continue
            weights, axis, place, cuts = found
            channels = self.constants[weights].dims[axis]
            try:
                cuts += self._bias(node, channels)
                cuts += self._follow(place)
                for cut in cuts:
                    self._check(cut.constant)
            except Unfollowed as reason:
                yield node.name, str(reason)
            else:
                yield Layer(node.name, weights, axis, channels, tuple(cuts))

    def _own(self, node: onnx.NodeProto) -> tuple[str, int, Place, list[Cut]] | None:
        """Weights, the axis of their output channels, and where these lie in the output."""
        if node.op_type not in {"Conv", "Gemm", "MatMul"} or node.input[1] not in self.constants:
            return None
        weights, output = node.input[1], node.output[0]
        rank = len(self.constants[weights].dims)
        if node.op_type == "Conv":
            axis, place = 0, Place(output, 1)
            if _attribute(node, "group", 1) != 1:
                return None
        elif node.op_type == "Gemm":
            axis, place = (0 if _attribute(node, "transB", 0) else 1), Place(output, 1)
        else:
            known = self.shapes.get(output, ())
            if rank != 2 or not known:
                return None
            axis, place = 1, Place(output, len(known) - 1)
        return weights, axis, place, [Cut(weights, axis)]

    def _bias(self, node: onnx.NodeProto, channels: int) -> list[Cut]:
        if node.op_type == "MatMul" or len(node.input) < 3 or not node.input[2]:
            return []
        return [self._one_each(node.input[2], channels, node)]

    def _one_each(self, name: str, channels: int, node: onnx.NodeProto) -> Cut:
        """The cut of a constant with an element for each channel, on its last axis."""
        tensor = self.constants.get(name)
        if tensor is None or not tensor.dims or tensor.dims[-1] != channels:
            msg = f"{node.name} adds what has no value of its own for each channel"
            raise Unfollowed(msg)
        return Cut(name, len(tensor.dims) - 1)

    def _check(self, constant: str) -> None:
        if len(self.readers.get(constant, ())) != 1 or constant in self.outside:
            msg = f"{constant} is shared"
            raise Unfollowed(msg)

    def _follow(self, place: Place) -> list[Cut]:
        cuts: list[Cut] = []
        todo = [place]
        while todo:
            here = todo.pop()
            if here.tensor in self.outside:
                msg = "its output leaves the graph"
                raise Unfollowed(msg)
            for node in self.readers.get(here.tensor, ()):
                more, onward = self._through(node, here)
                cuts += more
                todo += onward
        return cuts

    def _through(self, node: onnx.NodeProto, here: Place) -> tuple[list[Cut], list[Place]]:
        """What shrinks at a node that reads the channels, and where they lie after it."""
        onward = [Place(node.output[0], here.axis, here.start, here.width)]
        plain = node.domain in {"", "ai.onnx"} and [*node.input].count(here.tensor) == 1
        more = {*node.output[1:]} - {""}  # indices of a pool's values, statistics of a norm
        if not plain or more & (self.readers.keys() | self.outside):
            raise _lost(node)
        if self._keeps(node, here):
            return [], onward
        if node.op_type == "Conv":
            return self._at_conv(node, here, onward)
        at: dict[str, tuple[Callable[[onnx.NodeProto, Place], list[Cut]], list[Place]]] = {
            "Add": (self._at_constant, onward),
            "BatchNormalization": (self._at_norm, onward),
            "Gemm": (self._at_product, []),
            "MatMul": (self._at_product, []),
            "Mul": (self._at_constant, onward),
        }
        if node.op_type in at:
            cut, after = at[node.op_type]
            return cut(node, here), after
        moves = {"Concat": self._joined, "Flatten": self._flat, "Reshape": self._flat}
        if node.op_type in moves:
            return [], [moves[node.op_type](node, here)]
        raise _lost(node)

    def _keeps(self, node: onnx.NodeProto, here: Place) -> bool:
        """Whether a node keeps channels where they are, and a channel of zeros zero."""
        if node.op_type == "Clip":
            return self._holds_zero(node)
        if node.op_type == "ReduceMean":
            return self._means_behind(node, here)
        return node.op_type in ZERO_STAYS_ZERO or (node.op_type in POOLS and here.axis == 1)

    def _at_norm(self, node: onnx.NodeProto, here: Place) -> list[Cut]:
        if here.axis != 1 or not {*node.input[1:5]} <= self.constants.keys():
            raise _lost(node)
        return [Cut(name, 0, here.start, here.width) for name in node.input[1:5]]

    def _at_conv(
        self, node: onnx.NodeProto, here: Place, onward: list[Place]
    ) -> tuple[list[Cut], list[Place]]:
        weights = self.constants.get(node.input[1])
        if weights is None or here.axis != 1 or node.input[0] != here.tensor:
            raise _lost(node)
        groups = _attribute(node, "group", 1)
        if groups == 1:
            return [Cut(node.input[1], 1, here.start, here.width)], []
        if list(weights.dims[:2]) != [groups, 1]:
            raise _lost(node)
        names = [name for name in node.input[1:3] if name]  # of a depthwise convolution
        return [Cut(name, 0, here.start, here.width) for name in names], onward

    def _at_product(self, node: onnx.NodeProto, here: Place) -> list[Cut]:
        weights = self.constants.get(node.input[1])
        if weights is None or len(weights.dims) != 2 or node.input[0] != here.tensor:
            raise _lost(node)
        gemm = node.op_type == "Gemm"
        last = 1 if gemm else len(self.shapes.get(here.tensor, ())) - 1
        if here.axis != last or (gemm and _attribute(node, "transA", 0)):
            raise _lost(node)
        axis = 1 if gemm and _attribute(node, "transB", 0) else 0
        return [Cut(node.input[1], axis, here.start, here.width)]

    def _at_constant(self, node: onnx.NodeProto, here: Place) -> list[Cut]:
        """A constant added or multiplied: one value a channel shrinks, one factor for all stays."""
        other = next(name for name in node.input if name != here.tensor)
        tensor, shape = self.constants.get(other), self.shapes.get(here.tensor)
        if tensor is None:
            msg = f"{node.name} joins it with another branch"
            raise Unfollowed(msg)
        if shape is None or len(tensor.dims) > len(shape):
            raise _lost(node)
        axis = here.axis - len(shape) + len(tensor.dims)
        length = tensor.dims[axis] if axis >= 0 else 1
        if length == 1:
            if node.op_type == "Mul":
                return []
            raise _lost(node)
        return [Cut(other, axis, here.start, here.width)]

    def _flat(self, node: onnx.NodeProto, here: Place) -> Place:
        """The channels after all axes from theirs on became one."""
        shape = self.shapes.get(here.tensor)
        inner = None if shape is None or here.axis != 1 else shape[2:]
        if inner is None or None in inner or not self._flattens(node):
            raise _lost(node)
        area = math.prod(length for length in inner if length is not None)
        return Place(node.output[0], 1, here.start * area, here.width * area)

    def _flattens(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Flatten":
            return _attribute(node, "axis", 1) == 1
        shape = self.constants.get(node.input[1])
        wanted = [] if shape is None else numpy_helper.to_array(shape).tolist()
        given = self.shapes.get(node.input[0], (None,))[0]
        # The first axis is kept: copied, or the number that it has; the second takes the rest.
        return len(wanted) == 2 and wanted[1] == -1 and (wanted[0] == 0 or wanted[0] == given)

    def _joined(self, node: onnx.NodeProto, here: Place) -> Place:
        shape = self.shapes.get(here.tensor, ())
        axis = _attribute(node, "axis", 0)
        if not shape or axis % len(shape) != here.axis:
            raise _lost(node)
        start = here.start
        for name in node.input:
            if name == here.tensor:
                return Place(node.output[0], here.axis, start, here.width)
            before = self.shapes.get(name, ())
            length = before[here.axis] if len(before) > here.axis else None
            if length is None:
                raise _lost(node)
            start += length
        raise _lost(node)

    def _means_behind(self, node: onnx.NodeProto, here: Place) -> bool:
        """Whether a mean is over axes behind the channels' only: pictures, not channels."""
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
        constant = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        axes = axes if constant is None else numpy_helper.to_array(constant).tolist()
        rank = len(self.shapes.get(here.tensor, ()))
        return bool(axes and rank) and all(axis % rank > here.axis for axis in axes)

    def _holds_zero(self, node: onnx.NodeProto) -> bool:
        bounds = [_attribute(node, "min", -math.inf), _attribute(node, "max", math.inf)]
        for place, name in enumerate(node.input[1:3]):
            if name:
                tensor = self.constants.get(name)
                bounds[place] = (
                    math.nan if tensor is None else float(numpy_helper.to_array(tensor).ravel()[0])
                )
        return bounds[0] <= 0 <= bounds[1]


def _lost(node: onnx.NodeProto) -> Unfollowed:
    return Unfollowed(f"it can't be followed through {node.op_type} {node.name}")


def _attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            value: float = helper.get_attribute_value(attribute)
            return value
    return default


def _shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else None
        for dim in value.type.tensor_type.shape.dim
    )


def _read_in_subgraphs(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from (name for below in inner.node for name in below.input)
                yield from (value.name for value in inner.output)
                yield from _read_in_subgraphs(inner)
