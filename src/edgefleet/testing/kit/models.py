"""A real model, small enough to be trained in a test: which of two blobs does a point belong to."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

FEATURES = 64

TRAIN = """
    import json
    import os
    from pathlib import Path

    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    data = Path(os.environ["EDGEFLEET_DATA_DIR"])
    params = json.loads(os.environ["EDGEFLEET_PARAMS"])
    x, y = np.load(data / "x.npy"), np.load(data / "y.npy")
    weight = np.zeros((x.shape[1], 2), np.float32)
    for epoch in range(params["epochs"]):
        odds = np.exp(x @ weight)
        odds /= odds.sum(axis=1, keepdims=True)
        weight -= (x.T @ (odds - np.eye(2, dtype=np.float32)[y])).astype(np.float32) / len(x)
        accuracy = float(((x @ weight).argmax(axis=1) == y).mean())
        metric = {"name": "accuracy", "value": accuracy, "step": epoch}
        print("edgefleet-metric", json.dumps(metric))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "blobs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", x.shape[1]])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, Path(os.environ["EDGEFLEET_OUTPUT_DIR"]) / "model.onnx")
"""


def write_script(folder: Path) -> Path:
    """The training script, in that folder."""
    path = folder / "train.py"
    path.write_text(textwrap.dedent(TRAIN), encoding="utf-8")
    return path


def points(seed: int, count: int = 200) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points of two blobs, ``float32[count, FEATURES]``, and which blob each is of."""
    import numpy as np

    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    centres = np.linspace(-1, 1, FEATURES)[None, :] * np.where(labels, 1, -1)[:, None]
    return (centres + random.normal(0, 0.5, (count, FEATURES))).astype(np.float32), labels


def write_data(folder: Path, seed: int = 0) -> Path:
    """A folder with points for the script to learn from."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    x, y = points(seed)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return folder


def share_right(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of points that were told right."""
    return float((scores.argmax(axis=1) == labels).mean())


def accuracy(seed: int = 1) -> Callable[[Callable[[Any], Any]], float]:
    """What `edgefleet.optimize` calls to judge a candidate, on points kept apart."""
    x, y = points(seed)
    return lambda predict: share_right(predict(x), y)


def write_model(path: Path, seed: int) -> Path:
    """An untrained model of the same interface; another seed, another content."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(seed).normal(size=(FEATURES, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "blobs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
