"""The models that optimization is measured on, and pictures to judge by: nothing is downloaded.

SqueezeNet, ResNet-50 and ShuffleNet come with the onnx package, which ships them for its tests
without weights: each is one constant. Here they get random ones from a fixed seed, are normalized
layer by layer (Mishkin and Matas, 2015, "All you need is a good init"), and get a last layer fitted
to scikit-learn's scanned digits, the first four, so that there is an accuracy to lose. Time and
size don't depend on where weights come from. What int8 loses does: a network trained in all its
layers may lose more, or less.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from benchmarks.serving.raw import session_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

SIDE = 224  # pixels that the models of the onnx package take
DIGIT_SIDE = 8
LIGHT_CLASSES = 4  # digits that features from random filters tell apart
CALIBRATION = 40
OPSET = 17
IR_VERSION = 10
NORMALIZED_BY = 8  # pictures
MAX_ACCURACY_DROP = 0.01
MAX_DROP = {"shufflenet": 1.0}
"""Models whose gate is open, so that time alone decides; others have the default of `optimize`."""
LIGHT = "backend/test/data/light"


class Subject(NamedTuple):
    """A model and its data; it travels to a child process as two files.

    Attributes:
        name: of the model.
        path: of the ONNX file.
        calibration: float32 pictures, samples along the first axis; none of them is judged by.
        images: float32 pictures to judge by.
        labels: the digit that each shows.
    """

    name: str
    path: Path
    calibration: Array
    images: Array
    labels: Array

    def accuracy(self, predict: Callable[[Array], Array]) -> float:
        """Share of the pictures told right."""
        scores = np.asarray(predict(self.images)).reshape(len(self.images), -1)
        return float((scores.argmax(1) == self.labels).mean())

    def save(self) -> Path:
        """Write the data beside the model."""
        path = self.path.with_suffix(".npz")
        np.savez(path, calibration=self.calibration, images=self.images, labels=self.labels)
        return path

    @classmethod
    def load(cls, path: Path) -> Subject:
        """What `save` left beside the model at that path."""
        with np.load(path.with_suffix(".npz")) as data:
            arrays = {name: data[name] for name in ("calibration", "images", "labels")}
        return cls(path.stem, path, **arrays)


def squeezenet(folder: Path, *, fitted: int = 240, judged: int = 200) -> Subject:
    """SqueezeNet 1.0, ``data_0`` FP32[1, 3, 224, 224]; its last layer is a convolution."""
    return _light(folder, "squeezenet", fitted, judged)


def resnet50(folder: Path, *, fitted: int = 160, judged: int = 100) -> Subject:
    """ResNet-50, ``gpu_0/data_0`` FP32[1, 3, 224, 224]; its last layer is a Gemm."""
    return _light(folder, "resnet50", fitted, judged)


def shufflenet(folder: Path, *, fitted: int = 160, judged: int = 100) -> Subject:
    """ShuffleNet, of grouped convolutions and transpositions, which int8 makes slower."""
    return _light(folder, "shufflenet", fitted, judged)


def digits_mlp(folder: Path) -> Subject:
    """A perceptron 64-512-256-10 that is trained on the digits, ``x`` FP32[N, 64]."""
    return _trained(folder, "digits-mlp", channels=(), hidden=(512, 256))


def digits_cnn(folder: Path) -> Subject:
    """Three layers of random filters and a trained perceptron of one, ``x`` FP32[N, 1, 8, 8]."""
    return _trained(folder, "digits-cnn", channels=(32, 64, 64), hidden=(64,))


def _digits(fitted: int, judged: int, classes: int = 10) -> tuple[Array, Array, Array, Array]:
    """Pictures to fit by, from -1 to 1, and to judge by, float32[n, 1, 8, 8]; their labels."""
    images, labels = load_digits(n_class=classes, return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    scaled = (images[order] / 8 - 1).astype(np.float32).reshape(-1, 1, DIGIT_SIDE, DIGIT_SIDE)
    found, stop = labels[order].astype(np.int64), fitted + judged
    return scaled[:fitted], found[:fitted], scaled[fitted:stop], found[fitted:stop]


def _light(folder: Path, name: str, fitted: int, judged: int) -> Subject:
    spec = importlib.util.find_spec("onnx")
    assert spec is not None
    assert spec.origin is not None
    model = onnx.load(Path(spec.origin).parent / LIGHT / f"light_{name}.onnx")
    _fill(model)
    path = folder / f"{name}.onnx"
    fit, fit_labels, images, labels = _digits(fitted, judged, LIGHT_CLASSES)
    enlarge = SIDE // DIGIT_SIDE
    large, due = (
        np.repeat(np.kron(part, np.ones((1, 1, enlarge, enlarge), np.float32)), 3, axis=1)
        for part in (fit, images)
    )
    for node in model.graph.node:
        _normalize(model, node, path, large[:: fitted // NORMALIZED_BY])
    _fit_last_layer(model, path, large, fit_labels)
    onnx.save(model, path)
    return Subject(name, path, large[:CALIBRATION], due, labels)


def _fill(model: onnx.ModelProto) -> None:
    """Put random weights where the file has constants, and list only what callers give."""
    random = np.random.default_rng(0)
    graph = model.graph
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        (name,) = node.output
        values = _weight(name, tuple(shapes.pop(node.input[0])), random)
        shapes[name] = values.astype(np.float32)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in shapes.items())
    given = [value for value in graph.input if value.name not in shapes]
    kept = [value for value in given if not value.name.endswith("__SHAPE")]
    del graph.input[:]
    graph.input.extend(kept)
    model.ir_version = IR_VERSION


def _weight(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    if len(shape) > 1:
        return random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    ones = name.endswith(("_bn_s_0", "_bn_riv_0"))  # scale and variance of a normalization
    return np.ones(shape) if ones else np.zeros(shape)


def _normalize(model: onnx.ModelProto, node: onnx.NodeProto, path: Path, images: Array) -> None:
    """Let each channel of a layer have mean 0 and variance 1 over some pictures."""
    convolution = node.op_type == "Conv" and len(node.input) == 3  # those without have the other
    if not (convolution or node.op_type == "BatchNormalization"):
        return
    seen = _outputs(model, node.output[0], path, images)
    mean, deviation = seen.mean((0, 2, 3)), np.sqrt(seen.var((0, 2, 3)) + 1e-6)
    if convolution:
        weight = numpy_helper.to_array(_tensor(model, node.input[1]))
        _set(model, node.input[1], weight / deviation[:, None, None, None])
        _set(model, node.input[2], -mean / deviation)
    else:
        _set(model, node.input[3], mean)
        _set(model, node.input[4], np.square(deviation))


def _fit_last_layer(model: onnx.ModelProto, path: Path, images: Array, labels: Array) -> None:
    """Set the weights of the last layer so that its first classes are the digits."""
    last = next(n for n in reversed(model.graph.node) if n.op_type in {"Conv", "Gemm"})
    seen = _outputs(model, last.input[0], path, images)
    pixels = seen.reshape(len(seen), seen.shape[1], -1)  # one, where the layer is no convolution
    features = pixels.mean(2)
    center, scale = features.mean(0), features.std()  # one scale: rare features stay small
    head = LogisticRegression(max_iter=300).fit((features - center) / scale, labels)
    weight = head.coef_ / scale
    bias = head.intercept_ - weight @ center
    if last.op_type == "Conv":  # a ReLU follows, and then a mean: what is below zero would be lost
        bias = bias - np.quantile(np.einsum("cf,nfp->ncp", weight, pixels) + bias[:, None], 0.01)
    for name, found in ((last.input[1], weight), (last.input[2], bias)):
        whole = np.zeros(tuple(_tensor(model, name).dims), np.float32)
        whole[: len(found)] = found.reshape(len(found), *whole.shape[1:])
        _set(model, name, whole)


def _outputs(model: onnx.ModelProto, name: str, path: Path, images: Array) -> Array:
    """What the model gives under an inner name; onnxruntime leaves out what comes after."""
    probed = onnx.ModelProto.FromString(model.SerializeToString())
    del probed.graph.output[:]
    probed.graph.output.append(helper.make_empty_tensor_value_info(name))
    probe = path.with_name("probe.onnx")
    onnx.save(probed, probe)
    session = session_of(probe)
    probe.unlink()
    (given,) = session.get_inputs()
    return np.concatenate([session.run([name], {given.name: i[None]})[0] for i in images])


def _tensor(model: onnx.ModelProto, name: str) -> TensorProto:
    found: TensorProto = next(t for t in model.graph.initializer if t.name == name)
    return found


def _set(model: onnx.ModelProto, name: str, values: Array) -> None:
    _tensor(model, name).CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))


def _trained(
    folder: Path, name: str, *, channels: Sequence[int], hidden: tuple[int, ...]
) -> Subject:
    fit, fit_labels, images, labels = _digits(1200, 597)
    if not channels:
        fit, images = fit.reshape(len(fit), -1), images.reshape(len(images), -1)
    path = folder / f"{name}.onnx"
    nodes, weights = _filters(channels)
    last = nodes[-1].output[0] if nodes else "x"
    features = fit
    if nodes:
        _write(path, nodes, weights, fit.shape[1:], last)
        features = session_of(path).run([last], {"x": fit})[0]
    head = MLPClassifier(hidden, max_iter=30, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 30 epochs tell the digits well
        head.fit(features, fit_labels)
    for place, (weight, bias) in enumerate(zip(head.coefs_, head.intercepts_, strict=True)):
        weights += [
            numpy_helper.from_array(weight.astype(np.float32), f"w{place}"),
            numpy_helper.from_array(bias.astype(np.float32), f"b{place}"),
        ]
        nodes.append(helper.make_node("Gemm", [last, f"w{place}", f"b{place}"], [f"h{place}"]))
        last = f"h{place}"
        if place < len(hidden):
            nodes.append(helper.make_node("Relu", [last], [f"r{place}"]))
            last = f"r{place}"
    _write(path, nodes, weights, fit.shape[1:], last)
    return Subject(name, path, fit[:CALIBRATION], images, labels)


def _filters(channels: Sequence[int]) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Convolutions of 3 x 3 with random weights, each with a ReLU, and one row a sample."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for place, (wide, out) in enumerate(itertools.pairwise((1, *channels))):
        kernel = random.standard_normal((out, wide, 3, 3)) * math.sqrt(2 / (wide * 9))
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"k{place}"))
        nodes += [
            helper.make_node("Conv", [last, f"k{place}"], [f"c{place}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{place}"], [f"a{place}"]),
        ]
        last = f"a{place}"
    if nodes:
        nodes += [
            helper.make_node("MaxPool", [last], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["m"], ["flat"]),
        ]
    return nodes, weights


def _write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[TensorProto],
    sample: tuple[int, ...],
    output: str,
) -> None:
    graph = helper.make_graph(
        list(nodes),
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *sample])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", None])],
        list(weights),
    )
    opset = [helper.make_opsetid("", OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION), path)


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "squeezenet": squeezenet,
    "resnet50": resnet50,
    "shufflenet": shufflenet,
    "digits-cnn": digits_cnn,
    "digits-mlp": digits_mlp,
}
