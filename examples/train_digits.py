"""Train a small network on the digits and leave it as ONNX: a script as any trainer runs it.

Plain Python. What it is told comes in three environment variables, and each line that begins with
``edgefleet-metric`` is a figure. It runs alone just as well: ``python train_digits.py``.
"""

import json
import os
from pathlib import Path

import numpy as np
from digits_data import held_out, training_data
from skl2onnx import to_onnx
from sklearn.neural_network import MLPClassifier

params = {"epochs": 30, "hidden": 48, "seed": 0} | json.loads(
    os.environ.get("EDGEFLEET_PARAMS", "{}")
)
output = Path(os.environ.get("EDGEFLEET_OUTPUT_DIR", "outputs"))


def log_metric(name: str, value: float, step: int) -> None:
    """Tell a figure to whoever runs this."""
    metric = {"name": name, "value": value, "step": step}
    print("edgefleet-metric", json.dumps(metric), flush=True)


images, labels = training_data()
unseen, truth = held_out()
model = MLPClassifier((params["hidden"],), batch_size=64, random_state=params["seed"])
for epoch in range(params["epochs"]):
    model.partial_fit(images, labels, classes=np.arange(10))
    log_metric("loss", float(model.loss_), epoch)
log_metric("accuracy", float(model.score(unseen, truth)), params["epochs"])

# Plain arrays as outputs: `label` and `probabilities`, instead of a list of dictionaries.
graph = to_onnx(model, images[:1], options={"zipmap": False}, target_opset=17)
output.mkdir(parents=True, exist_ok=True)
(output / "model.onnx").write_bytes(graph.SerializeToString())
