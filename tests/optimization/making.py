"""Making one candidate by itself: the source, the recipe by name, the session of what was made."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgefleet.optimization.gate import Verdict
from edgefleet.optimization.makers import Source, maker_of
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.recipes import RECIPES
from edgefleet.optimization.samples import calibration_samples
from edgefleet.optimization.sessions import open_session
from tests.optimization import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.makers import Judge
    from edgefleet.optimization.recipes import Recipe

    Array = NDArray[np.float32]


def recipe(name: str) -> Recipe:
    return next(found for found in RECIPES if found.name == name)


def source_of(model: onnx.ModelProto | Path, folder: Path, data: Any = None, **more: Any) -> Source:
    path = models.save(model, folder / "m.onnx") if isinstance(model, onnx.ModelProto) else model
    file = inspect(path)
    samples = None if data is None else calibration_samples(data, file.interface)
    return Source(file=file, samples=samples, **more)


def make(name: str, source: Source, folder: Path, **options: Any) -> Artifact:
    found = recipe(name)
    found = dataclasses.replace(found, options=(*found.options, *options.items()))
    to = folder / "made"
    to.mkdir()
    return maker_of(found)(found, source, to, lambda _: None)


def outputs(artifact: Artifact, values: Array) -> Any:
    return open_session(artifact).predict(values)


def judged_by(accuracy: Callable[[Any], float], floor: float, seen: list[str]) -> Judge:
    def judge(artifact: Artifact) -> Verdict:
        found = accuracy(open_session(artifact).predict)
        seen.append(artifact.notes.get("quantization", ""))
        return Verdict(passed=found >= floor, reason=f"{found:.3f} of {floor:.3f}", drop=0.0)

    return judge


def operators(artifact: Artifact) -> list[str]:
    return [node.op_type for node in onnx.load(artifact.path).graph.node]


def in_floats(artifact: Artifact) -> set[str]:
    """Names of the nodes with weights that read them in floats."""
    graph = onnx.load(artifact.path).graph
    constants = {t.name for t in graph.initializer if len(t.dims) > 1}
    return {node.name for node in graph.node if constants & {*node.input}} - {
        node.name for node in graph.node if node.op_type == "DequantizeLinear"
    }


def digit_images() -> tuple[Array, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels


def small_cnn(
    images: Array, labels: NDArray[np.int64], *, wide: int | None = None
) -> onnx.ModelProto:
    """Conv 8 -> ReLU -> Conv 16 -> ReLU -> max pool -> Flatten -> Gemm, for float32[N, 1, 8, 8].

    The convolutions are random, the last layer is trained on what they give. ``wide`` makes one
    channel of the first 20,000 times as large as its neighbours, which the second takes back.
    """
    import onnxruntime

    first = numpy_helper.to_array(models.weights("w0", 8, 1, 3, 3, seed=1)).copy()
    second = numpy_helper.to_array(models.weights("w1", 16, 8, 3, 3, seed=2)) / np.float32(8)
    if wide is not None:
        first[wide] *= np.float32(20000)
        second[:, wide] /= np.float32(20000)
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], name="conv0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="conv1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node(
            "MaxPool", ["r1"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
    ]
    constants = [numpy_helper.from_array(first, "w0"), numpy_helper.from_array(second, "w1")]
    features = models.model_of(
        nodes, [models.floats("x", "N", 1, 8, 8)], [models.floats("f", "N", 144)], constants
    )
    session = onnxruntime.InferenceSession(
        features.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = np.pad(session.run(None, {"x": images})[0], ((0, 0), (0, 1)), constant_values=1)
    wanted = np.eye(10, dtype=np.float32)[labels]
    # Ridge regression to the classes, in closed form; the last row is the bias.
    trained = np.linalg.solve(given.T @ given + np.eye(len(given.T)), given.T @ wanted)
    last = [
        numpy_helper.from_array(np.ascontiguousarray(trained[:-1].T, np.float32), "w2"),
        numpy_helper.from_array(trained[-1].astype(np.float32), "b2"),
    ]
    nodes.append(helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="gemm", transB=1))
    return models.model_of(
        nodes,
        [models.floats("x", "N", 1, 8, 8)],
        [models.floats("y", "N", 10)],
        [*constants, *last],
    )


def branching() -> onnx.ModelProto:
    """y = relu(x) @ w if the sum of x is positive, else x @ w; each branch a subgraph."""
    branches = []
    for name, ops in (("then", ["Relu", "MatMul"]), ("else", ["Identity", "MatMul"])):
        nodes = [
            helper.make_node(ops[0], ["x"], [f"{name}_h"]),
            helper.make_node(ops[1], [f"{name}_h", "w"], [f"{name}_y"]),
        ]
        branches.append(helper.make_graph(nodes, name, [], [models.floats(f"{name}_y", None, 8)]))
    return models.model_of(
        [
            helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
            helper.make_node("Greater", ["s", "zero"], ["c"]),
            helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
        ],
        [models.floats("x", "N", 8)],
        [models.floats("y", "N", 8)],
        [models.weights("w", 8, 8), helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])],
    )
