"""A training script that costs next to nothing: softmax regression in numpy.

``digits.npz`` beside it has ``images``, ``labels``, ``unseen`` and ``truth``. What the script is
told and tells is as in ``examples/train_digits.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]

CLASSES, BATCH, RATE = 10, 64, 0.5


def log_metric(name: str, value: float, step: int) -> None:
    metric = {"name": name, "value": value, "step": step}
    print("edgefleet-metric", json.dumps(metric), flush=True)  # noqa: T201 - read by the trainer


with np.load(Path(__file__).with_name("digits.npz")) as held:
    images, labels, unseen, truth = (held[name] for name in ("images", "labels", "unseen", "truth"))
epochs = json.loads(os.environ["EDGEFLEET_PARAMS"])["epochs"]
weights = np.zeros((images.shape[1], CLASSES), np.float32)
wanted = np.eye(CLASSES, dtype=np.float32)[labels]
order = np.random.default_rng(0)


def likely(part: Array) -> Array:
    raised: Array = np.exp(part @ weights)
    found: Array = raised / raised.sum(axis=1, keepdims=True)
    return found


for epoch in range(epochs):
    for part in np.array_split(order.permutation(len(images)), len(images) // BATCH):
        wrong = wanted[part] - likely(images[part])
        weights += RATE / len(part) * images[part].T @ wrong
    log_metric("loss", -float(np.log((likely(images) * wanted).sum(axis=1)).mean()), epoch)
log_metric("accuracy", float((np.argmax(unseen @ weights, axis=1) == truth).mean()), epochs)

graph = helper.make_graph(
    [
        helper.make_node("MatMul", ["X", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ],
    "digits",
    [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", images.shape[1]])],
    [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES]),
    ],
    [numpy_helper.from_array(weights, "weights")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.save(model, Path(os.environ["EDGEFLEET_OUTPUT_DIR"]) / "model.onnx")
