"""ResNet-50 (He et al., 2015, table 1; stride in the 3 x 3 convolution as in torchvision's v1.5).

The architecture is the real one, 25.6 million parameters; the weights are random, for speed doesn't
depend on them. It is written here, so that no model has to be downloaded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from benchmarks.serving.models import Subject, save

if TYPE_CHECKING:
    from numpy.typing import NDArray

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, first stride
EXPANSION = 4
CLASSES = 1000
SIDE = 224  # pixels


class _Net:
    """Nodes and weights as they are added."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.parameters = 0
        self._random = np.random.default_rng(0)

    def weight(self, name: str, array: NDArray[Any], *, trained: bool = True) -> str:
        """A weight under a name; running means and variances aren't trained."""
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        self.parameters += array.size if trained else 0
        return name

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:  # noqa: ANN401 - onnx's
        """A node; returns the name of its output."""
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def convolution(self, x: str, wide: int, out: int, side: int, stride: int = 1) -> str:
        """A convolution without bias, and batch normalization behind it."""
        key = f"c{len(self.nodes)}"
        scale = math.sqrt(2 / (wide * side * side))  # He's initialization
        kernel = self._random.standard_normal((out, wide, side, side)) * scale
        x = self.add(
            "Conv",
            [x, self.weight(f"{key}.w", kernel)],
            kernel_shape=[side, side],
            strides=[stride, stride],
            pads=[side // 2] * 4,
        )
        norms = [
            self.weight(f"{key}.scale", np.ones(out)),
            self.weight(f"{key}.bias", np.zeros(out)),
            self.weight(f"{key}.mean", np.zeros(out), trained=False),
            self.weight(f"{key}.var", np.ones(out), trained=False),
        ]
        return self.add("BatchNormalization", [x, *norms])

    def bottleneck(self, x: str, wide: int, width: int, stride: int) -> str:
        """Three convolutions beside a shortcut."""
        out = width * EXPANSION
        y = self.add("Relu", [self.convolution(x, wide, width, 1)])
        y = self.add("Relu", [self.convolution(y, width, width, 3, stride)])
        y = self.convolution(y, width, out, 1)
        if stride != 1 or wide != out:
            x = self.convolution(x, wide, out, 1, stride)
        return self.add("Relu", [self.add("Add", [y, x])])

    def classify(self, x: str, wide: int) -> None:
        """The mean over pixels, and a layer to ``y``."""
        x = self.add("Flatten", [self.add("GlobalAveragePool", [x])])
        matrix = self._random.standard_normal((wide, CLASSES)) / math.sqrt(wide)
        inputs = [x, self.weight("fc.w", matrix), self.weight("fc.b", np.zeros(CLASSES))]
        self.nodes.append(helper.make_node("Gemm", inputs, ["y"]))


def resnet50(folder: Path) -> Subject:
    """The model with one image, ``x`` FP32[1, 3, 224, 224]; about 102 MB on the disk."""
    net = _Net()
    x = net.add("Relu", [net.convolution("x", 3, 64, 7, 2)])
    x = net.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    wide = 64
    for width, blocks, first in STAGES:
        for block in range(blocks):
            x = net.bottleneck(x, wide, width, first if block == 0 else 1)
            wide = width * EXPANSION
    net.classify(x, wide)
    assert net.parameters == 25_557_032, net.parameters  # as published for 1,000 classes
    path = folder / "resnet50.onnx"
    save(path, net.nodes, ("x", [1, 3, SIDE, SIDE]), ("y", [1, CLASSES]), net.weights)
    image = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    return Subject("resnet50", path, {"x": image})
