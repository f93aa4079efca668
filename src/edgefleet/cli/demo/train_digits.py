"""Train a small network on scikit-learn's scanned digits and write it as ONNX.

Plain Python: run it alone, or give it to any trainer with ``edgefleet train train_digits.py``. It
leaves ``model.onnx``, and ``images.npz`` with the images that training never saw.
"""

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from edgefleet import training

SEED = 7
CALIBRATION_IMAGES = 200
OPSET = 17


def main() -> None:
    """Train, measure, write."""
    params = training.params(hidden=64, epochs=20)
    digits = load_digits()  # 1797 images of 8x8 pixels, scanned from handwritten forms
    images = (digits.data / 16).astype(np.float32)
    x_train, x_held_out, y_train, y_held_out = train_test_split(
        images, digits.target, test_size=0.25, random_state=SEED, stratify=digits.target
    )

    network = MLPClassifier((params["hidden"], params["hidden"] // 2), random_state=SEED)
    with threadpool_limits(1):  # matrices this small only lose by more threads
        for epoch in range(params["epochs"]):
            network.partial_fit(x_train, y_train, classes=range(10))
            training.log_metric("loss", network.loss_, step=epoch)
    training.log_metric("accuracy", network.score(x_held_out, y_held_out))

    model = convert_sklearn(
        network,
        initial_types=[("image", FloatTensorType([None, images.shape[1]]))],
        options={"zipmap": False},
        target_opset=OPSET,
    )
    folder = training.output_dir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    np.savez(
        folder / "images.npz",
        calibration=x_train[:CALIBRATION_IMAGES],
        held_out=x_held_out,
        labels=y_held_out,
        trained=len(x_train),
    )


if __name__ == "__main__":
    main()
