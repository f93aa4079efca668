"""Train on the digits and on what devices captured: the training script of `close_the_loop.yaml`.

The loop's samples lie in ``samples.npz``: the model's input by its name, and the labels. The old
images are trained on, too, so that the model forgets nothing.
"""

import json
import os
from pathlib import Path

import numpy as np
from digits_data import training_data
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier

params = {"epochs": 30, "hidden": 64, "seed": 0} | json.loads(
    os.environ.get("EDGEFLEET_PARAMS", "{}")
)
images, labels = training_data()
with np.load(Path(os.environ["EDGEFLEET_DATA_DIR"]) / "samples.npz") as held:
    seen = held["X"].astype(np.float32)
    known = held["labels"]

# As much weight for what is new as for what is old.
times = max(1, len(images) // len(seen))
images = np.concatenate([images, np.repeat(seen, times, axis=0)])
labels = np.concatenate([labels, np.repeat(known, times)])
model = MLPClassifier((params["hidden"],), batch_size=64, random_state=params["seed"])
for _ in range(params["epochs"]):
    model.partial_fit(images, labels, classes=np.arange(10))
graph = to_onnx(model, images[:1], options={"zipmap": False}, target_opset=17)
output = Path(os.environ["EDGEFLEET_OUTPUT_DIR"])
(output / "model.onnx").write_bytes(graph.SerializeToString())
